"""Topics in a lake."""
