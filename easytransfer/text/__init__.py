"""Tokenizers: a fast batched path and the same one inside the graph."""
