"""The diary and what reads it."""
