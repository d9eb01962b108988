"""Model settings of the applications that read words, without a pre-trained encoder."""

from __future__ import annotations

from typing import Literal

from easytransfer.config.job import JobConfig, ModelConfig
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


class TextCnnSettings(WordSettings):
    """Words and convolutions of TextCNN."""

    max_vocab_size: int = setting(
        30000, "Most words kept, the most frequent ones; six special tokens count.", advanced=True, modes="T", ge=7
    )
    num_filters: list[int] = setting([100, 100, 100], "Filters of each width.", advanced=True, modes="T")
    filter_sizes: list[int] = setting([3, 4, 5], "Widths of the filters, in words.", advanced=True, modes="T")
    dropout_rate: float = setting(0.5, "Dropout before the head.", advanced=True, modes="T", ge=0, lt=1)


def check_text_cnn(config: JobConfig) -> None:
    """Checks the settings of an application with TextCNN, which reads one text.

    Raises:
        ValueError: Filters and widths do not fit each other, or a second text is named.
    """
    filters, sizes = config.model.num_filters, config.model.filter_sizes
    if len(filters) != len(sizes) or not filters or min(*filters, *sizes) < 1:
        raise ValueError(
            f"model.num_filters={filters} and model.filter_sizes={sizes} must be equally many whole numbers >= 1"
        )
    if config.data.second_sequence is not None:
        raise ValueError(
            f"data.second_sequence does not apply to {config.model_name}, which reads one text; "
            "text_match_bicnn compares two"
        )
