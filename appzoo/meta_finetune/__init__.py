"""Meta fine-tuning of an encoder on a task in several domains."""
