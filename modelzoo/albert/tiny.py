"""A seeded ALBERT with two calls of a small layer and a small vocabulary, for tests and first steps."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from easytransfer.errors import ModelError
from easytransfer.text.piece_model import MODEL_FILE, SPECIAL_TOKENS, PieceRules, model_file, parse_model
from easytransfer.text.sentence_piece import WORD_BEGIN, SentencePiece
from modelzoo.albert import formats
from modelzoo.albert.config import AlbertConfig
from modelzoo.albert.convert import ALBERT
from modelzoo.encoder_weights import initial_value
from modelzoo.tiny_words import CJK, SUFFIXES, WORDS


def tiny_pieces() -> list[str]:
    """Returns letters, digits, punctuation, common Chinese characters, and English words and their endings."""
    characters = [*string.punctuation, *string.digits, *string.ascii_lowercase, *CJK]
    return list(dict.fromkeys([WORD_BEGIN, *characters, *(WORD_BEGIN + word for word in WORDS), *SUFFIXES]))


def piece_model(pieces: Sequence[str]) -> bytes:
    """Returns a SentencePiece model with ALBERT's special tokens before `pieces`; longer pieces are preferred.

    Example:
        >>> piece_model(["▁", "a", "b"])
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    for token in SPECIAL_TOKENS:
        unknown = token == "<unk>"
        kind = proto.SentencePiece.UNKNOWN if unknown else proto.SentencePiece.CONTROL
        proto.pieces.add(piece=token, score=0.0, type=kind)
    for number, piece in enumerate(pieces):
        # Any segmentation into fewer pieces is better; the number makes the rest of the choices definite.
        proto.pieces.add(piece=piece, score=-10.0 - number / (10 * len(pieces)))
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    return proto.SerializeToString()


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
    tokenizer = SentencePiece(_model(vocab), PieceRules())
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


def _model(vocab: Sequence[str] | str | Path | None) -> bytes:
    if vocab is None:
        return piece_model(tiny_pieces())
    if not isinstance(vocab, str | Path):
        return piece_model(vocab)
    path = Path(vocab)
    path = (model_file(path) or path / MODEL_FILE) if path.is_dir() else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"no SentencePiece model at {path} ({error.strerror})", accepted="a .model file") from None
    parse_model(content, str(path))
    return content
