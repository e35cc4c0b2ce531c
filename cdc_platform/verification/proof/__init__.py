"""Is a topic, folded, equal to its table? Fold, scan, compare, verdict."""
