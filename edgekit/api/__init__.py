"""The functions behind the public names of edgekit, one module per task."""
