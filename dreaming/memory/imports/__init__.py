"""Bringing foreign logs into the diary: one module a format, bounded readers, one that runs them."""
