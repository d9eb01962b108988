"""Model folders: written as a whole or not at all, with a manifest of checksums (`zoo.json`)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ModelError, ResourceError
from easytransfer.run.atomic import sha256, sync

MANIFEST = "zoo.json"
_CHUNK = 1 << 20


@contextmanager
def new_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder that takes the name `target` when the block ends without an error.

    Args:
        target: Folder to create; parents are made.
        overwrite: Replace an existing folder instead of refusing.

    Raises:
        ModelError: `target` exists with content and `overwrite` is False.
        ResourceError: The place cannot be written.
    """
    target = Path(target)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} already exists", fix="choose another folder, or allow overwriting")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ResourceError(f"cannot write to {target.parent}: {error.strerror}") from None
    try:
        draft.chmod(0o755)
        yield draft
        for path in draft.rglob("*"):
            if path.is_file():
                # safetensors creates its files readable by the owner only.
                path.chmod(0o644)
                sync(path)
        sync(draft)
        old = draft.with_name(draft.name + "-old")
        if target.exists():
            os.replace(target, old)
        os.replace(draft, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ResourceError(f"cannot write {target}: {error}", fix="check free space and permissions") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ModelError: The file is not readable or holds something else.
    """
    try:
        data = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} must hold a JSON object", received=type(data).__name__)
    return data


def own_file(folder: str | Path, name: str) -> Path:
    """Returns a file of a model folder that is to be copied as it is.

    Raises:
        ModelError: It is a link out of the model: the copy would hold a file of this machine that nobody meant to give
            away. Links into the store beside a snapshot of the Hugging Face hub belong to the model.
    """
    folder, target = Path(folder).resolve(), Path(folder, name).resolve()
    home = folder.parent.parent if folder.parent.name == "snapshots" else folder
    if not target.is_relative_to(home):
        raise ModelError(f"{folder / name} is a link that leads out of its model", received=str(target))
    return target


def write_json(path: str | Path, data: dict[str, Any]) -> None:
    """Writes a JSON object with sorted keys and a final newline."""
    Path(path).write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_manifest(folder: str | Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes `zoo.json`: the given facts, and size and SHA-256 of every other file of the folder."""
    folder = Path(folder)
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = {"format": 1, **facts, "files": files}
    write_json(folder / MANIFEST, manifest)
    return manifest


def check_files(folder: str | Path, checksums: dict[str, str]) -> list[str]:
    """Compares files with their recorded SHA-256.

    Returns:
        One sentence per file that is absent or differs; empty when all agree.
    """
    problems = []
    for name, expected in checksums.items():
        path = Path(folder, name)
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (actual := sha256(path)) != expected:
            problems.append(f"{name} has SHA-256 {actual[:12]}..., recorded {expected[:12]}...")
    return problems
