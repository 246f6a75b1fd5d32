"""All claims together, and what a verification makes of them: tasks, outcomes, the record."""
