"""Measure artifacts on devices: the device emits raw samples, the host judges."""
