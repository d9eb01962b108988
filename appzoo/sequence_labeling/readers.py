"""Column files of words and tags, as the shared tasks of CoNLL have them."""

from appzoo.labeling.readers import READERS

__all__ = ["READERS"]
