"""Pre-trained models and their weights. Imports easytransfer only."""
