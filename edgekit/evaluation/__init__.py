"""Judge a trained network on the val and test splits."""
