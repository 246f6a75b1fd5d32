"""Independent implementations, plain and slow, that know nothing of probem's engine."""
