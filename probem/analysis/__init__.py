"""Which update each site gets, proved before anything runs."""
