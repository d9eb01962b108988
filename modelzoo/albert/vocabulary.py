"""Trains a SentencePiece model (Kudo and Richardson 2018, arXiv 1808.06226), unigram as ALBERT has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from easytransfer.text.piece_model import ALBERT_PIECES, PieceRules
from easytransfer.text.sentence_piece import SentencePiece
from modelzoo.tiny_pieces import trained_model


def trained(texts: Callable[[], Iterable[str]], size: int, lower_case: bool) -> SentencePiece:
    """Returns a tokenizer of at most `size` pieces, special tokens first; see `bert.vocabulary.trained`."""
    special = ALBERT_PIECES.special
    ids = {"pad_id": 0, "pad_piece": special[0], "unk_id": 1, "unk_piece": special[1], "bos_id": -1, "eos_id": -1}
    lowered = (text.lower() for text in texts()) if lower_case else texts()
    model = trained_model(lowered, size, control_symbols=list(special[2:]), **ids)
    return SentencePiece(model, PieceRules(lower_case=lower_case, keep_accents=True))
