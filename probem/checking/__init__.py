"""The theory on any program: the bound and the table of log joints from the program itself."""
