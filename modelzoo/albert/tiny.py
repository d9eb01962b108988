"""A seeded ALBERT with two calls of a small layer and a small vocabulary, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easytransfer.text.piece_model import ALBERT_PIECES
from easytransfer.text.sentence_piece import SentencePiece
from modelzoo.albert import formats
from modelzoo.albert.config import AlbertConfig
from modelzoo.albert.convert import ALBERT
from modelzoo.encoder_weights import initial_value
from modelzoo.tiny_pieces import chosen_model


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> AlbertConfig:
    """Writes the model with both pre-training heads as a preset folder.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Pieces without the special tokens, or a SentencePiece model, or a folder with one; `tiny_pieces()` when
            None.
        overwrite: Replace an existing folder.

    Returns:
        The configuration.

    Raises:
        ModelError: `vocab` is no SentencePiece model of an ALBERT, or the folder exists.
    """
    tokenizer = SentencePiece(chosen_model(vocab, ALBERT_PIECES.special))
    config = AlbertConfig(
        vocab_size=len(tokenizer),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_id,
    )
    values = {row.name: initial_value(row, seed, config.initializer_range) for row in ALBERT.table(config)}
    facts = {"name": Path(target).name, "type": "albert", "language": "en, zh", "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    formats.write_folder(target, "hf", config, values, tokenizer=tokenizer, facts=facts, overwrite=overwrite)
    return config
