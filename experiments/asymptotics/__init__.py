"""What becomes of fits as rows, separation or components grow."""
