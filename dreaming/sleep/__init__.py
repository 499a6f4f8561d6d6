"""One night, one file per step."""
