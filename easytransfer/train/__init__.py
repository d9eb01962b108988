"""Training: tasks, engine, trainer, checkpoints."""
