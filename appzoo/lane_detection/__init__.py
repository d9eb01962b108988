"""Lane detection with RESA."""
