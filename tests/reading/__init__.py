"""Topics read as tables."""
