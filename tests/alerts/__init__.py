"""Alerts: decided, kept, sent."""
