"""Pictures: decoding on the host and in the graph, resizing, statistics, seeded augmentation, contact sheets."""
