"""Several programs fitted to the same data, and a criterion that chooses among them."""
