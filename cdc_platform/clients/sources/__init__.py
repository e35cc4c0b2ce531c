"""Source databases, read for the proof: no lock, no transaction longer than one statement."""
