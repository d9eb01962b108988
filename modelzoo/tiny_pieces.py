"""Small SentencePiece models for the seeded models of `zoo make-tiny`."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from easytransfer.errors import ModelError
from easytransfer.text.piece_model import MODEL_FILE, model_file, parse_model
from easytransfer.text.sentence_piece import WORD_BEGIN
from modelzoo.tiny_words import CJK, SUFFIXES, WORDS


def tiny_pieces(cased: bool = False) -> list[str]:
    """Returns letters, digits, punctuation, common Chinese characters, and English words and their endings.

    Args:
        cased: Capital letters, too.
    """
    letters = string.ascii_letters if cased else string.ascii_lowercase
    characters = [*string.punctuation, *string.digits, *letters, *CJK]
    return list(dict.fromkeys([WORD_BEGIN, *characters, *(WORD_BEGIN + word for word in WORDS), *SUFFIXES]))


def piece_model(pieces: Sequence[str], special: Sequence[str]) -> bytes:
    """Returns a SentencePiece model with special tokens before `pieces`; longer pieces are preferred.

    Args:
        pieces: Pieces of text.
        special: Special tokens, `<unk>` among them, in the order of their ids.

    Example:
        >>> piece_model(["▁", "a", "b"], ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    for token in special:
        unknown = token == "<unk>"
        kind = proto.SentencePiece.UNKNOWN if unknown else proto.SentencePiece.CONTROL
        proto.pieces.add(piece=token, score=0.0, type=kind)
    for number, piece in enumerate(pieces):
        # Any segmentation into fewer pieces is better; the number makes the rest of the choices definite.
        proto.pieces.add(piece=piece, score=-10.0 - number / (10 * len(pieces)))
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    return proto.SerializeToString()


def chosen_model(vocab: Sequence[str] | str | Path | None, special: Sequence[str], cased: bool = False) -> bytes:
    """Returns the SentencePiece model that a user named.

    Args:
        vocab: Pieces without the special tokens, or a SentencePiece model, or a folder with one; `tiny_pieces` when
            None.
        special: Special tokens of a model that is made, in the order of their ids.
        cased: Whether `tiny_pieces` has capital letters.

    Raises:
        ModelError: `vocab` is no SentencePiece model.
    """
    if vocab is None:
        return piece_model(tiny_pieces(cased), special)
    if not isinstance(vocab, str | Path):
        return piece_model(vocab, special)
    path = Path(vocab)
    path = (model_file(path) or path / MODEL_FILE) if path.is_dir() else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"no SentencePiece model at {path} ({error.strerror})", accepted="a .model file") from None
    parse_model(content, str(path))
    return content
