"""Networks, their pretrained weights, and checkpoints."""
