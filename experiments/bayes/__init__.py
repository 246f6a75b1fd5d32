"""D and E: priors and full posteriors of the parameters."""
