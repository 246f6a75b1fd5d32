"""The M half-step: from additive statistics to parameters, by closed forms, numerically, or along the gradient."""
