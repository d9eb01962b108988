"""Training on several workers: exchange of gradients, layouts, launching. Horovod is imported in `collectives` only."""
