"""The real stack as local processes, and the demo."""
