"""Clients of each language, as programs."""

from __future__ import annotations


class Missing(Exception):
    """A compiler or runtime that a client needs is not installed here."""
