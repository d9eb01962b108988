"""ALBERT encoders."""
