"""Questions about images, answered by one of the answers of the training table."""
