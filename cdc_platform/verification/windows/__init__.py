"""Up to when is a topic complete? Windows of time, cut by source positions."""
