"""How hard a run may press: rows a second, replicas, heap."""
