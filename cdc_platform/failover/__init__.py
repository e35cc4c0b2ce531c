"""Leaders that move: which files and tasks follow, which server may lead, and moving one by hand."""
