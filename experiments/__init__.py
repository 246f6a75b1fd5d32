"""What is checked beside real data and independent computations, and how that is run and told."""
