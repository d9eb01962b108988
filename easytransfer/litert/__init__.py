"""Calls a LiteRT export. Imports no TensorFlow."""
