"""Adversarial training of image classifiers, its regularisation adjusted to the width of the network."""
