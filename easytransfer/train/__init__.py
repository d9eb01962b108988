"""Training: engine, trainer, checkpoints."""
