"""Checkpoints: folders that are complete or absent, found again by name, checked by content.

<run_dir>/model.ckpt-<step>/weights.safetensors     the weights to evaluate and export with (averaged ones under EMA)
                            optimizer.safetensors   what else training needs to continue
                            state.json              position, metrics, checksums of the two files
<run_dir>/checkpoint.json                           {"last": folder name, "best": folder name or null}
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ModelError, ResourceError
from easytransfer.layers.lora import base_digest, without_base
from easytransfer.presets.safetensors_file import read_safetensors
from easytransfer.run.atomic import plain, sha256, sync, write_json
from easytransfer.train.weights import assign_arrays

if TYPE_CHECKING:
    from easytransfer import keras

WEIGHTS, TRAINING, STATE, POINTER = "weights.safetensors", "optimizer.safetensors", "state.json", "checkpoint.json"
_FOLDER = re.compile(r"model\.ckpt-(\d+)")
_UNFINISHED = ".tmp"


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint in memory.

    Attributes:
        path: Its folder.
        weights: Model variables by stable name.
        training: Optimizer and engine variables by name.
        state: Content of state.json.
    """

    path: Path
    weights: dict[str, np.ndarray]
    training: dict[str, np.ndarray]
    state: dict[str, Any]


def folder_name(step: int) -> str:
    """Returns the name of the checkpoint folder of `step`."""
    return f"model.ckpt-{step}"


def steps(run_dir: Path) -> list[int]:
    """Returns the steps of the checkpoints in `run_dir`, ascending."""
    if not run_dir.is_dir():
        return []
    found = (_FOLDER.fullmatch(entry.name) for entry in run_dir.iterdir() if (entry / STATE).is_file())
    return sorted(int(match[1]) for match in found if match)


def save(
    run_dir: Path,
    step: int,
    weights: dict[str, np.ndarray],
    training: dict[str, np.ndarray],
    state: dict[str, Any],
) -> Path:
    """Writes a checkpoint beside its final place, flushes it to disk and renames it.

    Args:
        run_dir: Run folder.
        step: Completed updates.
        weights: Model variables by stable name.
        training: Optimizer and engine variables by name.
        state: JSON-able facts; checksums are added.

    Returns:
        The checkpoint folder.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    final = run_dir / folder_name(step)
    temporary = final.with_name(final.name + _UNFINISHED)
    try:
        remove_unfinished(run_dir)
        temporary.mkdir(parents=True)
        for name, arrays in ((WEIGHTS, weights), (TRAINING, training)):
            save_file({key: np.asarray(array, order="C") for key, array in arrays.items()}, temporary / name)
            sync(temporary / name)
        files = {name: sha256(temporary / name) for name in (WEIGHTS, TRAINING)}
        content = plain({**state, "step": step, "order": list(weights), "files": files})
        write_json(temporary / STATE, {**content, "checksum": _checksum(content)})
        sync(temporary)
        if final.exists():
            final.rename(final.with_name(final.name + ".old" + _UNFINISHED))
        temporary.rename(final)
        sync(run_dir)
        remove_unfinished(run_dir)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        raise ResourceError(
            f"cannot write the checkpoint {final}: {'the disk is full' if full else error}",
            fix="free space or make the folder writable, then start again: training continues from the last checkpoint",
        ) from error
    return final


def remove_unfinished(run_dir: Path) -> None:
    """Deletes what an interrupted `save` left behind."""
    for entry in run_dir.glob(f"model.ckpt-*{_UNFINISHED}"):
        shutil.rmtree(entry)


def clear(run_dir: Path) -> None:
    """Deletes all checkpoints of `run_dir`."""
    (run_dir / POINTER).unlink(missing_ok=True)
    for step in steps(run_dir):
        shutil.rmtree(run_dir / folder_name(step))
    remove_unfinished(run_dir)


def point(run_dir: Path, last: int, best: int | None) -> None:
    """Replaces the pointer file atomically."""
    write_json(run_dir / POINTER, {"last": folder_name(last), "best": None if best is None else folder_name(best)})


def prune(run_dir: Path, keep: int, best: int | None) -> None:
    """Deletes all but the `keep` newest checkpoints and the one of step `best`."""
    for step in steps(run_dir)[:-keep]:
        if step != best:
            # Renamed first: a half-deleted folder must not look like a checkpoint.
            doomed = run_dir / folder_name(step)
            doomed = doomed.rename(doomed.with_name(doomed.name + _UNFINISHED))
            shutil.rmtree(doomed)


def fault(path: Path, files: Iterable[str] = (WEIGHTS, TRAINING)) -> str | None:
    """Returns what is wrong with `files` or the state of the checkpoint folder `path`, None when nothing is."""
    try:
        state = parse_json((path / STATE).read_text(encoding="utf-8"))
        content = {key: value for key, value in state.items() if key != "checksum"}
        if state.get("checksum") != _checksum(content):
            return f"{STATE} was changed"
        for name in files:
            if sha256(path / name) != state["files"][name]:
                return f"{name} was changed or is incomplete"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{STATE} cannot be read: {error}"
    return None


def load(path: Path, *, weights_only: bool = False) -> Checkpoint:
    """Reads a checkpoint folder after checking it; `weights_only` leaves `training` empty.

    Raises:
        ModelError: It is incomplete or was changed.
    """
    problem = fault(path, (WEIGHTS,) if weights_only else (WEIGHTS, TRAINING))
    if problem:
        others = ", ".join(folder_name(step) for step in steps(path.parent)) or "none"
        raise ModelError(f"the checkpoint {path} is broken: {problem}", fix=f"checkpoints in that folder: {others}")
    state = parse_json((path / STATE).read_text(encoding="utf-8"))
    weights = read_safetensors(path / WEIGHTS)
    training = {} if weights_only else read_safetensors(path / TRAINING)
    try:
        return Checkpoint(path, {name: weights[name] for name in state["order"]}, training, state)
    except (KeyError, TypeError) as error:
        raise ModelError(f"the checkpoint {path} is broken: {STATE} does not belong to {WEIGHTS}: {error}") from None


def newest(run_dir: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Returns the newest complete checkpoint of `run_dir`, None when there is none; tells `warn` about broken ones."""
    for step in reversed(steps(run_dir)):
        path = run_dir / folder_name(step)
        problem = fault(path)
        if problem is None:
            return load(path)
        warn(f"checkpoint {path} is broken ({problem}); trying the one before it")
    return None


def resolve(path: str | Path) -> Path:
    """Finds the checkpoint folder a user means.

    Args:
        path: A run folder (its best checkpoint, else its last), `<run_dir>/model.ckpt-<step>`,
            `<run_dir>/model.ckpt-best` or `<run_dir>/model.ckpt-last`.

    Raises:
        ModelError: There is no such checkpoint; those that exist are listed.
    """
    path = Path(path)
    if (path / STATE).is_file():
        return path
    wanted = path.name.removeprefix("model.ckpt-")
    run_dir = path.parent if path.name.startswith("model.ckpt") else path
    found = steps(run_dir)
    pointer = _pointer(run_dir)
    names = {"best": ["best"], "last": ["last"]}.get(wanted, ["best", "last"] if run_dir == path else [])
    for name in names:
        # Only a checkpoint of this run: the file could name any folder of the machine.
        target = run_dir / str(pointer.get(name))
        if _FOLDER.fullmatch(str(pointer.get(name))) and (target / STATE).is_file():
            return target
    if found and "last" in names:
        return run_dir / folder_name(found[-1])
    listing = ", ".join(
        [folder_name(step) for step in found] + [f"model.ckpt-{name}" for name in pointer if pointer[name]]
    )
    raise ModelError(
        f"there is no checkpoint {path}",
        accepted=listing or None,
        fix=f"give one of these in {run_dir}" if listing else f"{run_dir} holds no checkpoint; train first",
    )


def load_weights(model: keras.Model, path: str | Path) -> Path:
    """Sets all variables of `model` from the checkpoint `path` names (see `resolve`), and returns its folder.

    Raises:
        ModelError: No such checkpoint, a broken one, or one of another model.
    """
    checkpoint = load(resolve(path), weights_only=True)
    assign(model, checkpoint)
    return checkpoint.path


def assign(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Sets the variables of `model` that a checkpoint holds: all, or adapters and heads beside the same base.

    Raises:
        ModelError: It is one of another model, or its adapters are those of another base.
    """
    check_base(base_digest(model.weights), checkpoint)
    assign_arrays(without_base(model.weights), checkpoint.weights, str(checkpoint.path))


def check_base(base: str | None, checkpoint: Checkpoint) -> None:
    """Refuses adapters (LoRA) of other pre-trained weights than those in the model.

    Args:
        base: What `base_digest` returns for the model.
        checkpoint: What is to be assigned.

    Raises:
        ModelError: They are others.
    """
    stored = checkpoint.state.get("base")
    if stored is not None and base is not None and stored != base:
        raise ModelError(
            f"the checkpoint {checkpoint.path} holds adapters for other pre-trained weights than those of "
            "model.pretrain_model_name_or_path",
            received=f"SHA-256 {base[:12]}",
            accepted=stored[:12],
            fix="put the pre-trained model back as it was in the training, or train anew",
        )


def _pointer(run_dir: Path) -> dict[str, str | None]:
    """Content of the pointer file; a missing or broken one is no reason to refuse complete checkpoints."""
    try:
        content = parse_json((run_dir / POINTER).read_text(encoding="utf-8"))
        return {name: content.get(name) for name in ("last", "best")}
    except (OSError, ValueError, AttributeError):
        return {}


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
