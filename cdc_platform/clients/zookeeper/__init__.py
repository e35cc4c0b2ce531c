"""ZooKeeper: the topology, the lock, the agents."""
