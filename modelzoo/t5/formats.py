"""Reads and writes model folders of T5: Hugging Face's, and checkpoints of Mesh TensorFlow."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.folder import new_folder, own_file, write_json, write_manifest
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.safetensors_file import INDEX, WEIGHTS, read_safetensors_folder, write_safetensors
from modelzoo.checkpoint import read_checkpoint, write_checkpoint
from modelzoo.t5.config import T5Config
from modelzoo.t5.convert import from_google, from_hf, is_weight, to_google, to_hf, weight_table

Form = Literal["hf", "google"]
FORMS: tuple[Form, ...] = ("hf", "google")
_CHECKPOINT = "model.ckpt"


@dataclass
class ModelFiles:
    """What was read from a model folder.

    Attributes:
        config: Configuration.
        values: Weights that fit, float32, by Hugging Face's names, kernels as [input, output].
        report: What matched; call `report.check()` before using `values`.
        form: Form of the folder.
        parts: Always both sides.
    """

    config: T5Config
    values: dict[str, np.ndarray]
    report: LoadReport
    form: Form
    parts: tuple[str, ...] = ("encoder", "decoder")


def detect_form(folder: str | Path, checkpoint: str | None = None) -> Form:
    """Returns the form of a model folder.

    Raises:
        ModelError: No readable weights are there.
    """
    folder = Path(folder)
    if checkpoint is None and ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file()):
        return "hf"
    if any(folder.glob("*.index")):
        return "google"
    raise ModelError(
        f"no weights in {folder}",
        accepted=f"{WEIGHTS}, or a TensorFlow checkpoint (*.ckpt.index with *.ckpt.data-00000-of-00001)",
        fix="fetch or copy the weights; random weights are used only when from_scratch is set",
    )


def read_folder(
    folder: str | Path, *, form: Form | None = None, config: T5Config | None = None, checkpoint: str | None = None
) -> ModelFiles:
    """Reads configuration and weights of a model folder.

    Args:
        folder: Model folder; a checkpoint needs a config.json beside it.
        form: Form of the folder; found out when None.
        config: Sizes to check against; the folder's own configuration when None.
        checkpoint: Prefix of the TensorFlow checkpoint inside the folder.

    Raises:
        ModelError: The folder has no weights, or a file is damaged.
    """
    folder = Path(folder)
    form = form or detect_form(folder, checkpoint)
    config = config or T5Config.from_folder(folder)
    if form == "hf":
        values, report = from_hf(read_safetensors_folder(folder), config, str(folder))
    else:
        source = str(folder / (checkpoint or _only_checkpoint(folder)))
        values, report = from_google(read_checkpoint(source, is_weight), config, source)
    return ModelFiles(config, values, report, form)


def write_folder(
    target: str | Path,
    form: Form,
    config: T5Config,
    values: Mapping[str, np.ndarray],
    *,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **tokenizer: Any,
) -> None:
    """Writes a model folder as a whole or not at all; see `write_files`.

    Raises:
        ModelError: The form is unknown or the folder exists.
    """
    if form not in FORMS:
        raise ModelError("unknown model format", received=form, accepted=FORMS)
    with new_folder(target, overwrite) as folder:
        write_files(folder, form, config, values, **tokenizer)
        if facts is not None:
            write_manifest(folder, {**size_facts(config), **facts})


def write_files(
    folder: Path,
    form: Form,
    config: T5Config,
    values: Mapping[str, np.ndarray],
    *,
    source: str | Path | None = None,
    tokenizer: Any = None,
) -> None:
    """Writes configuration, weights and tokenizer of a model into an existing folder.

    Args:
        folder: The folder.
        form: `hf` or `google`.
        config: Configuration.
        values: Weights by Hugging Face's names, kernels as [input, output].
        source: Model folder to take the tokenizer from.
        tokenizer: Tokenizer to save instead.
    """
    if form == "hf":
        write_safetensors(folder / WEIGHTS, to_hf(values, config))
    else:
        write_checkpoint(folder / _CHECKPOINT, to_google(values, config))
    architectures = {"architectures": ["T5ForConditionalGeneration"]}
    write_json(folder / "config.json", {**config.to_dict(), **architectures})
    if tokenizer is not None:
        tokenizer.save(folder)
    elif source is not None:
        found = [path for path in Path(source).glob("*.model") if path.is_file()]
        # Beside a model it says the same and is not read.
        for path in found or Path(source).glob("tokenizer.json"):
            shutil.copyfile(own_file(source, path.name), folder / path.name)


def _only_checkpoint(folder: Path) -> str:
    found = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if len(found) == 1:
        return found[0]
    raise ModelError(f"{folder} holds {len(found)} TensorFlow checkpoints", received=found, fix="name one of them")


def size_facts(config: T5Config) -> dict[str, Any]:
    """Returns manifest entries under the names that presets.json uses."""
    return {
        "layers": config.num_layers + config.num_decoder_layers,
        "hidden": config.d_model,
        "heads": config.num_heads,
        "intermediate": config.d_ff,
        "vocab": config.vocab_size,
        "parameters": sum(int(np.prod(row.shape)) for row in weight_table(config)),
    }
