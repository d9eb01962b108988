"""Typed configuration: schema, files, overrides and the original flags."""
