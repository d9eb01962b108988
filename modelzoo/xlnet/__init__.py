"""XLNet encoders."""
