"""Score models, and write the report of a run."""
