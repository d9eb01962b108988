"""Exact metrics over whole tables."""
