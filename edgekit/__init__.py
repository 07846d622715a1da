"""edgekit: fine-tune a classifier, quantize it once, run it on Jetson and phones, and measure it."""

__version__ = "0.1.0"
