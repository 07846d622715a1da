"""One calibration, two emitters: ranges observed once in torch, written as QDQ ONNX and LiteRT."""
