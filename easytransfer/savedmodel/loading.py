"""Opens an export for prediction, without the model's Python code or the ModelZoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.manifest import MANIFEST, read_manifest

# What computes in an export: a SavedModel, or a model for LiteRT, which `easytransfer.litert` opens.
PROGRAMS = ("saved_model.pb", "model.tflite")


@dataclass(frozen=True)
class Exported:
    """An export, loaded.

    Args:
        path: The folder with `saved_model.pb`.
        version: Its version number, None for a folder that is not named by one.
        manifest: Content of `export.json`; empty for a SavedModel that this package did not write.
        assets: Folder with vocabulary and labels.
        signatures: Functions by name; keyword arguments and results are NumPy arrays, strings are `str` in results
            except in outputs whose name ends in `_bytes`.
    """

    path: Path
    version: int | None
    manifest: Mapping[str, Any]
    assets: Path
    signatures: Mapping[str, Callable[..., dict[str, np.ndarray]]]


def is_exported(path: str | Path) -> bool:
    """Says whether there is an export at `path`, without importing TensorFlow."""
    return bool(_found(Path(path)))


def find_exported(path: str | Path) -> Path:
    """Returns the folder of a version: `path` itself, or the highest one of the one model below it.

    Args:
        path: `<base>/<name>/<version>`, `<base>/<name>`, or `<base>` with one model.

    Raises:
        ModelError: No export is there, or several models are.
    """
    folder = Path(path)
    found = _found(folder)
    if not found:
        there = sorted(item.name for item in folder.iterdir())[:20] if folder.is_dir() else "nothing"
        raise ModelError(
            f"no export at {folder}",
            received=there,
            accepted="a folder with saved_model.pb or model.tflite, its model folder, or the folder of one model",
            fix="give the folder that `export` printed",
        )
    models = sorted({version.parent.name for version in found})
    if found != [folder] and len(models) > 1:
        raise ModelError(f"{folder} holds several models", accepted=models, fix="add one of these names to the path")
    return max(found, key=lambda version: int(version.name) if version.name.isdecimal() else 0)


def load_exported(path: str | Path) -> Exported:
    """Loads an export.

    Args:
        path: See `find_exported`.

    Raises:
        ModelError: Nothing usable is there.
    """
    import tensorflow as tf

    from easytransfer.savedmodel.calling import eager_callers
    from easytransfer.savedmodel.graph import load_needed_operators, read_saved_model

    folder = find_exported(path)
    if not (folder / PROGRAMS[0]).is_file():
        raise ModelError(
            f"{folder} is an export for LiteRT", accepted=f"one with {PROGRAMS[0]}", fix="predict and evaluate take it"
        )
    try:
        manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
        load_needed_operators(read_saved_model(folder))
        callers = eager_callers(folder)
        signatures = {name: _checked(name, caller, manifest) for name, caller in callers.items()}
    except (CheckFailed, tf.errors.OpError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ModelError(f"the export at {folder} cannot be loaded", received=str(error)) from error
    version = int(folder.name) if folder.name.isdecimal() else None
    return Exported(folder, version, manifest, folder / "assets", signatures)


def _found(folder: Path) -> list[Path]:
    if any((folder / program).is_file() for program in PROGRAMS):
        return [folder]
    for above in ("*", "*/*"):
        files = [file for program in PROGRAMS for file in folder.glob(f"{above}/{program}")]
        versions = {file.parent for file in files if file.parent.name.isdecimal()}
        if versions:
            return sorted(versions)
    return []


def _checked(
    name: str, caller: Callable[..., Any], manifest: Mapping[str, Any]
) -> Callable[..., dict[str, np.ndarray]]:
    expected = set(manifest.get("signatures", {}).get(name, {}).get("inputs", ()))

    def call(**inputs: Any) -> dict[str, np.ndarray]:
        if expected and set(inputs) != expected:
            raise ModelError(f"wrong inputs for {name}", received=sorted(inputs), accepted=sorted(expected))
        outputs = caller(inputs)
        return {key: value if key.endswith("_bytes") else _text(value) for key, value in outputs.items()}

    return call


def _text(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind != "O":
        return value
    texts = [item.decode("utf-8", errors="replace") for item in value.ravel()]
    return np.array([*texts, None], object)[:-1].reshape(value.shape)
