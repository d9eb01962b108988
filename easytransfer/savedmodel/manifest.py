"""The manifest of an export, as it is read; `easytransfer.export.manifest` writes it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from .failure import CheckFailed

MANIFEST = "assets.extra/export.json"
ABSOLUTE_PATH = re.compile(r"^(/([^/\0\n]+/)+[^/\0\n]+|[A-Za-z]:\\[^\0\n]+)$")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns `assets.extra/export.json`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckFailed(f"{MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise CheckFailed(f"{MANIFEST} is not a JSON object")
    return manifest


def signature_digest(signatures: dict[str, Any]) -> str:
    """Returns the SHA-256 of names, dtypes and shapes of all inputs and outputs."""
    plain = {name: {side: entry[side] for side in ("inputs", "outputs")} for name, entry in signatures.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
