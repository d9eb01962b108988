"""A seeded BERT with two small layers and a small vocabulary, for tests and first steps without a download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelzoo.bert import formats
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.encoder_weights import initial_value
from modelzoo.tiny_words import chosen_tokens


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> BertConfig:
    """Writes the model with both pre-training heads as a preset folder.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Tokens, or a file with one per line; `tiny_vocabulary()` when None.
        overwrite: Replace an existing folder.

    Returns:
        The configuration.

    Raises:
        ModelError: A special token is missing from `vocab`, or the folder exists.
    """
    tokens = chosen_tokens(vocab)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=tokens.index("[PAD]"),
        do_lower_case=True,
    )
    values = {row.name: initial_value(row, seed, config.initializer_range) for row in BERT.table(config)}
    facts = {"name": Path(target).name, "type": "bert", "language": "en, zh", "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    formats.write_folder(target, "hf", config, values, vocabulary=tokens, facts=facts, overwrite=overwrite)
    return config
