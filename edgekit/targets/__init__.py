"""Targets: model files for each family of devices, and readers of these files."""
