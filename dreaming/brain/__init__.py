"""The model: pure functions on pytrees."""
