"""Proof that topics are complete, duplicates and their cause, repair."""
