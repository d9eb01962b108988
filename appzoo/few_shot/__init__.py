"""Classification with few labelled rows: the words of a pre-training answer at a mask."""
