"""The folder that a verification leaves behind, and the page in it."""
