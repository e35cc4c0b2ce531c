"""The proof's files: sorted arrays, and the cache that alone makes and removes paths."""
