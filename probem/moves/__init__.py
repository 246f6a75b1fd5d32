"""Moves between numbers of components: from one fit to a better one, by starts that no iteration comes to."""
