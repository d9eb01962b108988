"""Pre-training of a T5: spans of a text that were left out."""
