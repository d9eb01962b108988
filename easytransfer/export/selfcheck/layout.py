"""Check 1: files, version number, manifest and tag set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...savedmodel.failure import CheckFailed
from ...savedmodel.manifest import ABSOLUTE_PATH, MANIFEST, file_digest, read_manifest, signature_digest

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
