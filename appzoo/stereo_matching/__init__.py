"""Disparity of stereo pairs, learnt without ground truth."""
