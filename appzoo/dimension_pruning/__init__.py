"""Pruning of a network in depth, width and resolution together."""
