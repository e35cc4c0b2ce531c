"""What should be, what was observed, and positions in a source's log: frozen values, no I/O."""
