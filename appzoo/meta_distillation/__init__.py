"""Meta-distillation: a small classifier learns from a teacher of several domains."""
