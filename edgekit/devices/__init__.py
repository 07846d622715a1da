"""Devices and how to reach them: over ssh, over adb, or on this machine."""
