"""Matching and retrieval of texts and images."""
