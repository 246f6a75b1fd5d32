"""How fast EM converges, what a step is, and what makes it faster."""
