"""Run folders: logging, progress, environment, model card."""
