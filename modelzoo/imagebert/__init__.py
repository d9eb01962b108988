"""ImageBERT: one stream of words, labels and regions; the network of FashionBERT and of LAMP."""
