"""Matching of two texts: packed into one encoder, encoded by two towers, or compared word by word."""
