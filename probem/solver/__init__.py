"""The loop: its state, its steps, where it starts and when it stops."""
