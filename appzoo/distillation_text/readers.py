"""The same column files of words and tags as sequence labelling, for students that label."""

from appzoo.labeling.readers import READERS

__all__ = ["READERS"]
