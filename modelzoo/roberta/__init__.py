"""RoBERTa encoders."""
