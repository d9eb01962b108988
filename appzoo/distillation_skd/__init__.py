"""Spherical knowledge distillation of image networks."""
