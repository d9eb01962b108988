"""A trained application opened for use: from a run folder, one of its checkpoints, or an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.discovery import load_application
from appzoo.jobs.inference import Call, traced_once
from easytransfer.app.contract import App
from easytransfer.config.job import JobConfig
from easytransfer.errors import ModelError
from easytransfer.litert.model import MODEL, LiteRtModel
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.savedmodel.loading import find_exported, is_exported, load_exported
from easytransfer.train.precision import compute_precision, pad_multiple


@dataclass
class Trained:
    """An application with trained weights.

    Args:
        app: Prepared application; `app.model` exists unless it came from an export.
        call: The model on one batch of arrays.
        labelled_call: The same for labelled batches, with all that evaluation reads; an export has the first only.
        folder: Where the assets (vocabulary, labels) are.
        source: Checkpoint or export it was read from.
        step: Training step, None for an export.
        pad_multiple: What widths of batches are rounded up to.
    """

    app: App
    call: Call
    folder: Path
    source: Path
    step: int | None
    labelled_call: Call
    pad_multiple: int


def new_app(config: JobConfig) -> App:
    """Returns the unprepared application that `config.model_name` names."""
    return load_application(config.model_name)(config)


def open_trained(config: JobConfig) -> Trained:
    """Opens `config.checkpoint_path`.

    Raises:
        ModelError: Nothing usable is there, or the weights do not fit.
    """
    # A run folder has its exports inside; its name means the checkpoints.
    if not (Path(config.checkpoint_path) / CONFIG_FILE).is_file() and is_exported(config.checkpoint_path):
        return _from_export(config)
    from easytransfer.train import checkpoint

    path = checkpoint.resolve(config.checkpoint_path)
    app = new_app(config)
    app.load_assets(path.parent)
    with compute_precision(config.runtime.mixed_precision):
        app.build_model(path.parent)
    checkpoint.load_weights(app.model, path)
    merge_adapters(app)
    step = int(path.name.rpartition("-")[2])
    return Trained(
        app, model_call(app), path.parent, path, step, model_call(app, labelled=True), pad_multiple(config.runtime)
    )


def merge_adapters(app: App) -> None:
    """Adds the adapters (LoRA) of a trained network, if it has any, to its weights: it is an ordinary one from then."""
    merge = getattr(getattr(app.model, "backbone", None), "merge_lora", None)
    if merge is not None:
        merge()


def _from_export(config: JobConfig) -> Trained:
    found = find_exported(config.checkpoint_path)
    if (found / MODEL).is_file():
        return _from_litert(config, found)
    exported = load_exported(found)
    _refuse_vectors(exported.manifest, found)
    app = new_app(config)
    app.load_assets(exported.assets)
    signature = exported.signatures["predict_ids"]

    def call(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return signature(**app.model_inputs(batch))

    return Trained(app, call, exported.assets, exported.path, None, call, pad_multiple(config.runtime))


def _from_litert(config: JobConfig, folder: Path) -> Trained:
    model = LiteRtModel(folder)
    _refuse_vectors(model.manifest, folder)
    app = new_app(config)
    app.load_assets(model.assets)
    return Trained(app, model, model.assets, model.folder, None, model, 1)


def _refuse_vectors(manifest: Mapping[str, Any], folder: Path) -> None:
    if "vectors" in manifest:
        raise ModelError(f"{folder} is an export of vectors", fix="use it with ez_bert_feat --modelName")


def model_call(app: App, *, labelled: bool = False) -> Call:
    """Returns the in-memory model as a function of NumPy batches, `labelled` ones for evaluation."""
    forward = traced_once(app.evaluate_step if labelled else app.predict_step, app.config.runtime, app.specs())
    inputs = app.evaluation_inputs if labelled else app.model_inputs
    return lambda batch: forward(inputs(batch))
