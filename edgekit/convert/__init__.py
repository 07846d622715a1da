"""Convert a network from torch to ONNX and LiteRT."""
