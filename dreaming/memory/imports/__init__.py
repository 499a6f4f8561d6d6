"""Bringing foreign logs into the diary: one module a format, and one that runs them."""
