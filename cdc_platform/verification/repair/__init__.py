"""Re-emit what is missing or wrong, remove what is extra, prove the shards again."""
