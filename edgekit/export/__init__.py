"""Float models for other runtimes: the folded torch graph, ONNX, LiteRT."""
