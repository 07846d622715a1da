"""The command line: parse arguments, call `edgekit.api`, print results, set the exit status."""
