"""T5: text to text by an encoder and a decoder."""
