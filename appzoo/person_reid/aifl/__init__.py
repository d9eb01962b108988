"""AIFL: features that do not look at clothes, learnt from images and their twins in other clothes."""
