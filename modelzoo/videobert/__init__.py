"""VideoBERT: one stream of words and clips of a video."""
