"""The same data fitted by several programs, and a criterion that chooses among them."""
