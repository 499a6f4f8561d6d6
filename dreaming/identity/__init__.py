"""What a night leaves behind."""
