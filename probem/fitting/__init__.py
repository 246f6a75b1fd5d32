"""One fit: options, the problem, and the driver that takes its steps."""
