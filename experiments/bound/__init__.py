"""A: the bound, of which k-means climbs one special case and EM another."""
