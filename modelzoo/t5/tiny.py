"""A seeded T5 with two small layers on either side, for tests and first steps without a download."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from easytransfer.errors import ModelError
from modelzoo.bert.tiny import tiny_vocabulary
from modelzoo.t5 import formats
from modelzoo.t5.config import T5Config
from modelzoo.t5.convert import initial_value, weight_table

_PIECES = 400


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> T5Config:
    """Writes the model as a preset folder.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Not for SentencePiece.
        overwrite: Replace an existing folder.

    Returns:
        The configuration.

    Raises:
        ModelError: A vocabulary was given, or the folder exists.
    """
    if vocab is not None:
        raise ModelError("the tokenizer of a T5 is a SentencePiece model, no list of words", fix="leave out --vocab")
    words = [word for word in tiny_vocabulary() if not word.startswith(("[", "##"))]
    model = trained_pieces(words, _PIECES)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    config = T5Config.from_dict({"vocab_size": _PIECES, **sizes})
    values = {row.name: initial_value(row, seed) for row in weight_table(config)}
    facts = {"name": Path(target).name, "type": "t5", "language": "en, zh", "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    from modelzoo.t5.tokenizer import T5Tokenizer

    formats.write_folder(target, "hf", config, values, tokenizer=T5Tokenizer(model), facts=facts, overwrite=overwrite)
    return config


def trained_pieces(texts: Iterable[str], size: int, **options: object) -> bytes:
    """Returns a SentencePiece model of texts with T5's special pieces: padding 0, end 1, unknown 2.

    Args:
        texts: What it is trained on.
        size: Number of pieces.
        options: Further ones of the library's trainer.
    """
    import sentencepiece

    written = io.BytesIO()
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    quiet = {"num_threads": 1, "minloglevel": 2, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, vocab_size=size, **special, **quiet, **options
    )
    return written.getvalue()
