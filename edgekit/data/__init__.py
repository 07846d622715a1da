"""Images: which ones, which class, which split, and how a file becomes pixels."""
