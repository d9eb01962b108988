"""BERT encoders: network, presets, weight maps."""
