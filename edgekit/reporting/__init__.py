"""Decide what to ship, and write reports."""
