"""Text to text: what a text is to be turned into, written by a pre-trained encoder and decoder."""
