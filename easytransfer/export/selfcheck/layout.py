"""Check 1: files, version number, manifest and tag set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .failure import CheckFailed

MANIFEST = "assets.extra/export.json"
REQUIRED_FILES = ("saved_model.pb", "variables/variables.index", MANIFEST, "assets.extra/tf_serving_warmup_requests")
ALLOWED_FILES = re.compile(
    r"(saved_model|fingerprint)\.pb|variables/variables\.(index|data-\d+-of-\d+)|assets/[^/]+"
    r"|assets\.extra/(export\.json|export_report\.json|tf_serving_warmup_requests)"
)
# `labels`, `max_length` and `tokenizer_digest` may be null where a model has none, but must be stated.
REQUIRED_KEYS = (
    "format", "packages", "git_revision", "labels", "max_length", "tokenizer_digest", "assets", "max_batch_size",
    "tolerance", "float_types", "signatures", "samples",
)  # fmt: skip
ABSOLUTE_PATH = re.compile(r"^(/([^/\0\n]+/)+[^/\0\n]+|[A-Za-z]:\\[^\0\n]+)$")


def check_layout(folder: Path, staged: bool) -> dict[str, Any]:
    """Returns the manifest of a folder that holds what it must and nothing else.

    Args:
        folder: The version folder.
        staged: True before it is renamed to its version number.

    Raises:
        CheckFailed: A file is missing, foreign or changed, or the manifest is incomplete.
    """
    if not staged and not re.fullmatch(r"[1-9]\d*", folder.name):
        raise CheckFailed(f"the folder must be named by a positive integer version, not {folder.name!r}")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    missing = [name for name in REQUIRED_FILES if not files.get(name, folder / name).is_file()]
    if missing:
        raise CheckFailed(f"missing: {', '.join(missing)}")
    foreign = [name for name, path in files.items() if not ALLOWED_FILES.fullmatch(name) or path.is_symlink()]
    if foreign:
        raise CheckFailed(f"foreign files: {', '.join(sorted(foreign))}")
    manifest = read_manifest(folder)
    _check_manifest(manifest)
    _check_assets(folder, manifest["assets"])
    return manifest


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


def _check_manifest(manifest: dict[str, Any]) -> None:
    absent = [key for key in REQUIRED_KEYS if key not in manifest]
    if absent:
        raise CheckFailed(f"{MANIFEST} lacks {', '.join(absent)}")
    if "tensorflow" not in manifest["packages"]:
        raise CheckFailed(f"{MANIFEST} does not name the TensorFlow version")
    if manifest.get("signature_digest") != signature_digest(manifest["signatures"]):
        raise CheckFailed(f"{MANIFEST}: signature_digest does not belong to its signatures")
    if set(manifest["samples"]) != set(manifest["signatures"]):
        raise CheckFailed(f"{MANIFEST}: every signature needs samples")
    facts = {key: value for key, value in manifest.items() if key != "samples"}
    paths = sorted(text for text in _strings(facts) if ABSOLUTE_PATH.match(text))
    if paths:
        raise CheckFailed(f"{MANIFEST} holds paths of the machine that wrote it: {', '.join(paths)}")


def _check_assets(folder: Path, digests: dict[str, str]) -> None:
    present = {path.name: path for path in (folder / "assets").glob("*")}
    missing = sorted(set(digests) - set(present))
    if missing:
        raise CheckFailed(f"missing under assets/: {', '.join(missing)}")
    changed = sorted(
        name for name, path in present.items() if name not in digests or file_digest(path) != digests[name]
    )
    if changed:
        raise CheckFailed(f"not as the manifest says under assets/: {', '.join(changed)}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
