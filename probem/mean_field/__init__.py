"""q of the sites outside the data plate: expected statistics, updates and entropy."""
