"""Targets: what each family of devices is given, and in what box."""
