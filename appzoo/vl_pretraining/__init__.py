"""Pre-training of encoders of texts and images."""
