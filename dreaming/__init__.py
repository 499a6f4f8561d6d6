"""Dreaming Machines: an agent on a frozen Gemma 3 that learns at night what it lived by day."""
