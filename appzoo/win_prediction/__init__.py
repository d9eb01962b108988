"""Real-time win prediction with contributions of feature groups that add up (TSSTN)."""
