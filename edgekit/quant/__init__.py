"""Quantization: ranges observed once in torch, written by two emitters as QDQ ONNX and LiteRT."""
