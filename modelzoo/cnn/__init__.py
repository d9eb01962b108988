"""Convolutional image classifiers: configurations, networks, profiler and weights."""
