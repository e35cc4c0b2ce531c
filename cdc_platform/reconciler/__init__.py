"""One pass of the control plane: observe, plan, apply, report."""
