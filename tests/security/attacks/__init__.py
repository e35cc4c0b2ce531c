"""One test an attack: what a hostile author, server or writer of a topic tried, and where it ends."""
