"""Which events were sent more than once, and why."""
