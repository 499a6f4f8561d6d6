"""Configurations: `default` has every field, the others only override it."""
