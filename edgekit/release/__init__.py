"""Releases: shipped kits in a folder that any web server hands out, as a TUF repository."""
