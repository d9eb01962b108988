"""Pre-training of encoders on plain text."""
