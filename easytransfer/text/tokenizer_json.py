"""What kind of vocabulary a `tokenizer.json` of the package `tokenizers` holds, and how large such files may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError

JSON_FILE = "tokenizer.json"
# The largest known files of tokenizers, of 250,000 pieces, have 17 MB.
MOST_BYTES = 64 << 20
# Keys that only models of one kind have.
_SIGNS = {"BPE": "merges", "WordPiece": "max_input_chars_per_word", "Unigram": "unk_id"}


def model_kind(model: Any) -> str | None:
    """Returns the kind of the part `model`, such as `BPE`; None where it has none.

    Early releases of `tokenizers` did not write it, and all of them still read such files.
    """
    if not isinstance(model, dict):
        return None
    kind = model.get("type") or next((kind for kind, key in _SIGNS.items() if key in model), None)
    return kind if isinstance(kind, str) else None


def bounded(path: Path) -> Path:
    """Returns the path of a file that is small enough to be read whole."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ModelError(f"{path} is too large for a tokenizer", received=f"{size} bytes", accepted=f"{MOST_BYTES}")
    return path
