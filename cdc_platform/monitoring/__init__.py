"""Metrics of the control plane for Prometheus."""
