"""From an observed state and a desired state to a plan. Pure."""
