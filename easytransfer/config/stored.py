"""The configuration a run leaves beside its weights, and what a later job takes from it."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from easytransfer.config.job import JobConfig
from easytransfer.config.json_text import parse_json
from easytransfer.config.original import from_original_json, is_original
from easytransfer.errors import ModelError

RUN_CONFIG = "train_config.json"
EXPORT_MANIFEST = Path("assets.extra", "export.json")
CHOSEN = ("model.ckpt-best", "model.ckpt-last")

# What describes the finished training job or its table rather than the model; a later job states its own.
NOT_INHERITED = (
    "mode",
    "checkpoint_dir",
    "checkpoint_path",
    "export",
    "distribution",
    "tracking",
    "data.train_table",
    "data.eval_table",
    "data.eval_share",
    "data.input_table",
    "data.output_table",
    "data.append_cols",
    "data.output_schema",
    "data.encoding",
    "data.bad_rows",
    "data.max_bad_rows",
    "data.region_cache",
    "data.merge",
    "runtime.resume",
    "runtime.overwrite",
    "runtime.log_format",
    "runtime.dry_run",
)


def require_checkpoint(checkpoint_path: str | Path) -> Path:
    """Returns the path of a checkpoint that exists.

    Raises:
        ModelError: If it does not; lists the checkpoints beside it.
    """
    path = Path(str(checkpoint_path))
    # An original checkpoint is a prefix of several files rather than a folder; best and last are names for a folder.
    chosen = path.name in CHOSEN and os.path.isfile(path.parent / "checkpoint.json")
    if not (chosen or os.path.exists(path) or os.path.exists(f"{path}.index")):
        raise ModelError(f"checkpoint {path} does not exist", accepted=_checkpoints(path.parent) or None)
    return path


def find_run_config(checkpoint_path: str | Path) -> Path:
    """Finds the stored configuration that belongs to a checkpoint.

    Args:
        checkpoint_path: A run folder, `run_folder/model.ckpt-N`, an exported SavedModel, or a folder above it.

    Returns:
        Path of `train_config.json`, or of the `export.json` of an exported model.

    Raises:
        ModelError: If the path or the configuration does not exist; lists the checkpoints that do.
    """
    path = require_checkpoint(checkpoint_path)
    for folder in (path, path.parent):
        if os.path.isfile(folder / RUN_CONFIG):
            return folder / RUN_CONFIG
    for folder in (path, *_versions(path)):
        if (folder / EXPORT_MANIFEST).is_file():
            return folder / EXPORT_MANIFEST
    raise ModelError(
        f"no stored configuration for {path}: no {RUN_CONFIG} beside the checkpoint, no {EXPORT_MANIFEST} below it",
        fix="give the run folder written by training, one of its checkpoints, or an exported model",
    )


def has_run_config(path: str | Path) -> bool:
    """Returns whether a path is a run folder, a checkpoint or an export of ours rather than a pre-trained model."""
    try:
        place = find_run_config(path)
        return place.name == EXPORT_MANIFEST.name or "schema_version" in parse_json(place.read_text(encoding="utf-8"))
    except (ModelError, OSError, ValueError, TypeError):
        return False


def _checkpoints(folder: Path) -> list[str]:
    """Lists the checkpoints of a folder, the latest last."""
    if not os.path.isdir(folder):
        return []
    names = {item.name.removesuffix(".index") for item in folder.glob("model.ckpt-*") if ".data-" not in item.name}
    return [str(folder / name) for name in sorted(names, key=lambda name: (len(name), name))]


def _versions(base: Path) -> list[Path]:
    """Lists exported versions below `<base>/<version>` and `<base>/<name>/<version>`, the newest first."""
    found = [item for item in (*base.glob("*"), *base.glob("*/*")) if item.name.isdigit() and item.is_dir()]
    return sorted(found, key=lambda item: int(item.name), reverse=True)


def load_run_config(checkpoint_path: str | Path) -> dict[str, Any]:
    """Reads the stored configuration that belongs to a checkpoint, as nested plain values.

    Args:
        checkpoint_path: As for `find_run_config`.

    Raises:
        ModelError: If it is missing or damaged.
    """
    place = find_run_config(checkpoint_path)
    try:
        values = parse_json(place.read_text(encoding="utf-8"))
        if place.name == EXPORT_MANIFEST.name:
            values = values["config"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"the stored configuration {place} is damaged: {error!r}", fix="restore it or train again"
        ) from None
    if not isinstance(values, dict):
        raise ModelError(f"the stored configuration {place} is damaged: it holds no keys")
    if is_original(values):
        # Paths of the training job are not wanted here, so nothing is read but model and preprocessing.
        values = from_original_json(values, "train", warn=lambda text: None)
    return values


def run_settings(config: JobConfig) -> dict[str, Any]:
    """Returns what `RunFolder.create` and `plan` take of a configuration."""
    runtime = config.runtime
    return {
        "config": config.model_dump(mode="json"),
        "resume": runtime.resume,
        "overwrite": runtime.overwrite,
        "defaults": type(config)().model_dump(mode="json"),
    }


def inherited(stored: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a stored configuration that a later evaluation, prediction or export starts from."""
    return _without(stored, NOT_INHERITED)


def _without(values: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    values = copy.deepcopy(values)
    for path in paths:
        *sections, name = path.split(".")
        place: Any = values
        for section in sections:
            place = place.get(section, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place.pop(name, None)
    return values
