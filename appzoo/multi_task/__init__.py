"""Several tasks on texts with one encoder."""
