"""Trained networks from elsewhere: read, checked, and described as a run describes its own."""
