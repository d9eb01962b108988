"""A seeded T5 with two small layers on either side, for tests and first steps without a download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from easytransfer.errors import ModelError
from modelzoo.t5 import formats
from modelzoo.t5.config import T5Config
from modelzoo.t5.convert import initial_value, weight_table
from modelzoo.tiny_pieces import trained_model

_PIECES = 300
_TEXTS = """
the old man and the sea went out before the day began; she said that it was a good time to read, to write, to work
what is the name of the place where you have seen my friends? here it is, in the middle of the city, next to the river
translate this short text into another language: yes, no, many thanks, see you tomorrow at 8 or 9 in the morning
a summary of 1,234,567 words fits into 50 if most of them are left out; that is how news are made, and why they help
negative positive neutral: this film is boring, that book was wonderful, the service could have been better than before
who wrote it, when was it written, how long did it take and which of them were first? nobody knows for sure
大家 喜欢 这个 城市 的 人 不 知道 明天 我们 去 哪里 看 书 和 电影 很 好 质量 不错 谢谢
""".strip().splitlines()


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
    model = trained_pieces(_TEXTS, _PIECES)
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
    return trained_model(texts, size, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, **options)
