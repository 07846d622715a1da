"""Doubles of what cannot be had without a Jetson: they speak the real formats, and compute with ONNX Runtime."""
