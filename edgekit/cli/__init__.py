"""The command line: wiring, printing, and the one place where errors are caught."""
