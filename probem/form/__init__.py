"""A program in exponential form: its table of log joints is one matrix product."""
