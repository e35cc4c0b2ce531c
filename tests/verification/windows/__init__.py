"""Windows of time, cut by source positions."""
