"""Makes model folders of published weight files of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.safetensors_file import read_safetensors
from easytransfer.presets.torch_file import read_torch
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.keras_applications import read_published
from modelzoo.cnn.layouts import from_layout
from modelzoo.cnn.names import named


def write_published(
    path: Path, target: Path, layout: str, network: str, classes: int | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a published file of weights as a model folder.

    Args:
        path: `.pth`, `.safetensors` or, of the layout `keras`, `.h5` file.
        target: New folder.
        layout: Key of `layouts.LAYOUTS`, or `keras`.
        network: Name of the network.
        classes: Number of its classes; None without classifier.
        facts: Entries of the manifest.

    Returns:
        What is told of it: folder, source, numbers of weights and files.

    Raises:
        ModelError: The file is not readable or does not fit; its numbers are not finite; the folder exists.
    """
    model = CnnBackbone(named(network), classes)
    if layout == "keras":
        values = read_published(path, model.config, model.network)
    else:
        values = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
        values = from_layout(values, model.config, layout, path.name)
    model.import_weights(values, path.name)
    if not np.isfinite(model.example_outputs()).all():
        raise ModelError(f"{path.name} gives values that are not finite", fix="its weights are damaged")
    model.save_to_preset(target, facts=facts)
    return {
        "folder": str(target),
        "from": layout,
        "to": "ez",
        "weights": len(model.load_report.matched),
        "files": sorted(file.name for file in target.iterdir()),
    }
