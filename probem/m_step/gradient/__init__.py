"""Guarded quasi-Newton steps for parameters of a site without an exponential-family form."""
