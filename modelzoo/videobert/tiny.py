"""A seeded VideoBERT of three small layers and a small vocabulary, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelzoo.videobert.config import VideoBertConfig
from modelzoo.videobert.convert import VIDEOBERT
from modelzoo.vision_language import tiny


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> VideoBertConfig:
    """Writes the model for ten clips of 24 numbers as a preset folder; see `vision_language.tiny.write_tiny`."""
    return tiny.write_tiny(VIDEOBERT, target, seed, vocab, overwrite, max_regions=10)
