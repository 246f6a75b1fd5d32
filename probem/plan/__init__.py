"""What was decided about a program: data, and no decisions."""
