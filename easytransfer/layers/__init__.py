"""Layers that two or more model families or applications use."""
