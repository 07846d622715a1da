"""Shipping: a folder with a model, its preprocessing in the language of an app, and tests that hold them together."""
