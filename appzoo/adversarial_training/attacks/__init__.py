"""Attacks on classifiers of inputs from 0 to 1: gradient steps inside a ball, in the graph."""
