"""A seeded ImageBERT of three small layers and a small vocabulary, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelzoo.imagebert.config import ImageBertConfig
from modelzoo.imagebert.convert import IMAGEBERT
from modelzoo.vision_language import tiny


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> ImageBertConfig:
    """Writes the model for regions of 24 numbers as a preset folder; see `vision_language.tiny.write_tiny`."""
    return tiny.write_tiny(IMAGEBERT, target, seed, vocab, overwrite)
