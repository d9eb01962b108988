"""Pictures and maps: decoding on the host and in the graph, sizes, statistics, augmentation, joint transforms."""
