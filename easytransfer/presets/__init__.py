"""Presets: names to folders, weights files, checksums."""
