"""Trains the SentencePiece model of a T5, and names its sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from easytransfer.errors import ModelError
from modelzoo.t5.tiny import trained_pieces
from modelzoo.t5.tokenizer import T5Tokenizer

_NAMES = {
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}


def trained(texts: Callable[[], Iterable[str]], size: int, lower_case: bool) -> T5Tokenizer:
    """Returns a tokenizer of at most `size` pieces; see `bert.vocabulary.trained`.

    Raises:
        ModelError: `lower_case` is set: the family has no such rule.
    """
    if lower_case:
        raise ModelError("the pieces of a T5 know both cases", fix="leave out --lowerCase")
    return T5Tokenizer(trained_pieces(texts(), size))


def settings(sizes: Mapping[str, int], tokenizer: T5Tokenizer) -> dict[str, Any]:
    """Returns the configuration of a T5 by its own names, with embeddings for the sentinels of pre-training.

    Raises:
        ModelError: A size has no meaning for a T5.
    """
    unknown = [name for name in sizes if name not in _NAMES]
    if unknown:
        raise ModelError(f"a T5 has no {unknown[0]}: its positions are relative", fix="leave it out")
    found = {_NAMES[name]: value for name, value in sizes.items()}
    if "d_model" in found or "num_heads" in found:
        width, heads = found.get("d_model", 512), found.get("num_heads", 8)
        if width % heads:
            raise ModelError(f"hidden_size {width} is not a multiple of num_attention_heads {heads}")
        found["d_kv"] = width // heads
    rows = max(len(tokenizer), tokenizer.sentinels[0] + 1)
    return {**found, "vocab_size": rows, "pad_token_id": 0, "eos_token_id": tokenizer.eos_id}
