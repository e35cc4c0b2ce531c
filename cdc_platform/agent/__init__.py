"""The agent beside each Connect worker: keeps the leader files, and restarts tasks whose leader moved.

Failover goes from ZooKeeper through here to the worker, without the control
plane. No Dagster and no numpy are loaded.
"""
