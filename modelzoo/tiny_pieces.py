"""Small SentencePiece models for the seeded models of `zoo make-tiny`."""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

from easytransfer.errors import DataError, ModelError
from easytransfer.text.piece_model import MODEL_FILE, WORD_BEGIN, model_file, parse_model
from modelzoo.tiny_words import CJK, SUFFIXES, WORDS

# Lines that a SentencePiece model is trained on, at most.
_MOST_LINES = 2_000_000


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


def trained_model(texts: Iterable[str], size: int, **options: object) -> bytes:
    """Returns a SentencePiece model of at most `size` pieces, trained on texts; the same for the same texts.

    Args:
        texts: Lines.
        size: Number of pieces.
        options: Further ones of the library's trainer.

    Raises:
        DataError: The texts are too few for a vocabulary.
    """
    import sentencepiece

    written = io.BytesIO()
    quiet = {"num_threads": 1, "minloglevel": 2, "hard_vocab_limit": False}
    # A part of a large corpus is enough, and the library keeps in memory what it takes.
    part = {"input_sentence_size": _MOST_LINES, "shuffle_input_sentence": False}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=written, vocab_size=size, **part, **quiet, **options
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"no SentencePiece model of {size} pieces can be trained on these texts: {reason}") from None
    return written.getvalue()


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
