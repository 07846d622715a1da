"""Tests of edgekit.shipping."""
