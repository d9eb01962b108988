"""Trains byte-level BPE (Radford et al. 2019, section 2.2), as RoBERTa has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from easytransfer.errors import ModelError
from easytransfer.text.byte_level_bpe import ByteLevelBpe
from modelzoo.roberta.tiny import trained_bpe


def trained(texts: Callable[[], Iterable[str]], size: int, lower_case: bool) -> ByteLevelBpe:
    """Returns a tokenizer of at most `size` pieces; see `bert.vocabulary.trained`.

    Raises:
        ModelError: `lower_case` is set: the family has no such rule.
    """
    if lower_case:
        raise ModelError("byte-level BPE knows both cases and has no rule to lower them", fix="leave out --lowerCase")
    return ByteLevelBpe(trained_bpe(texts(), size))
