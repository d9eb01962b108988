"""Resolving model names and folders, safetensors files, checksums and downloads. Imports no TensorFlow."""

from easytransfer.presets.preset import Preset, default_zoo, resolve

__all__ = ["Preset", "default_zoo", "resolve"]
