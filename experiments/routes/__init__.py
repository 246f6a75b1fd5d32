"""H: the routes of the engine beyond closed forms, and what else a fit is asked for."""
