"""A fit that goes on with data that arrives batch by batch."""
