"""What is compiled, and kept; in which precision, and by which thread."""
