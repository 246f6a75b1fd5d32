"""D1, D2 and E5 to E8: where the likelihood has no upper bound, and what priors do about it and about K."""
