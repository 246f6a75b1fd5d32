"""The E half-step: one pass over blocks of rows, to additive statistics and the terms of the bound."""
