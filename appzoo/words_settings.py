"""Model settings of the applications that read words, without a pre-trained encoder."""

from __future__ import annotations

from typing import Literal

from easytransfer.config.job import ModelConfig
from easytransfer.config.schema import setting


class WordSettings(ModelConfig):
    """Vocabulary and word vectors."""

    max_vocab_size: int = setting(
        20000, "Most words kept, the most frequent ones; six special tokens count.", advanced=True, modes="T", ge=7
    )
    min_word_count: int = setting(
        1, "Words met less often in the training table are unknown.", advanced=True, modes="T", ge=1
    )
    split_characters: Literal["none", "cjk", "all"] = setting(
        "none",
        "Characters that are words of their own, beside the split at white space: none, Chinese ones, or all.",
        advanced=True,
        modes="T",
    )
    embedding_size: int = setting(300, "Length of a word vector.", advanced=True, modes="T", ge=1)
    pretrain_word_embedding_name_or_path: str | None = setting(
        None,
        "Start vectors: a text file of word2vec, first line `count dimension`.",
        advanced=True,
        modes="T",
        path="one",
    )
    fix_embedding: bool = setting(False, "Do not train the word vectors.", advanced=True, modes="T")
