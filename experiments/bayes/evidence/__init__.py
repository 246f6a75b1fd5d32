"""E1 to E4, E9: full posteriors of the parameters, and the evidence that their bound is below."""
