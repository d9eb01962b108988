"""Losses, summed per batch so that any split of the global batch agrees."""
