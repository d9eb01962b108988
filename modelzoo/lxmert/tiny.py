"""A seeded LXMERT of small layers and a small vocabulary, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelzoo.lxmert.config import LxmertConfig
from modelzoo.lxmert.convert import LXMERT
from modelzoo.vision_language import tiny


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> LxmertConfig:
    """Writes the model for regions of 24 numbers as a preset folder; see `vision_language.tiny.write_tiny`."""
    return tiny.write_tiny(LXMERT, target, seed, vocab, overwrite, l_layers=2, r_layers=1, x_layers=1)
