"""Topics read as tables: the state that the fold gives, typed as at the source."""
