"""What the connector of each engine needs beyond what all share."""
