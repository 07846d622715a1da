"""Reach a device: over ssh, over adb, or on this machine."""
