"""Differentiable search of small networks for the classification of texts."""
