"""Tables of Iceberg that are filled from topics: every event, and the rows as they are now."""
