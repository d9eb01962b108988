"""What an export costs: its parameters, its bytes, and the time of a call; a program that measures one.

python -m appzoo.experiment.cost EXPORT
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.savedmodel.array_json import decode_array, take_rows
from easytransfer.savedmodel.loading import find_exported

# Rows of a call, and calls whose median is taken.
SIZES, CALLS = (1, 32), 20
SIGNATURE = "predict_ids"


def filled(
    samples: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int | None]], rows: int, length: int | None
) -> dict[str, np.ndarray]:
    """Returns a batch made of the samples of an export, whose texts have the full length.

    Args:
        samples: Arrays by input, [rows, ...], of which rows are repeated.
        shapes: Shapes of the inputs by name; None is an open axis.
        rows: Rows of the batch.
        length: Tokens or words of a row, None for a model without texts: whole numbers [rows, open axis] are repeated
            up to it.
    """
    found = take_rows(samples, rows)
    for name, value in found.items():
        if length and value.ndim == 2 and value.dtype.kind in "iu" and shapes[name][1] is None:
            found[name] = value[:, np.arange(length) % value.shape[1]]
    return found


def export_cost(path: Path) -> dict[str, Any]:
    """Measures an export on this machine.

    Args:
        path: See `easytransfer.savedmodel.loading.find_exported`.

    Returns:
        `parameters` of the signature `predict_ids`, `bytes` of the folder, the median milliseconds `ms_1` and `ms_32`
        of a call with so many rows, `devices` and `cpus`.

    Raises:
        ModelError: No export is there.
    """
    import tensorflow as tf

    from easytransfer.savedmodel.graph import load_needed_operators, read_saved_model
    from easytransfer.savedmodel.manifest import read_manifest

    folder = find_exported(path)
    load_needed_operators(read_saved_model(folder))
    manifest = read_manifest(folder)
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[SIGNATURE]
    specs = signature.structured_input_signature[1]
    samples = {name: decode_array(value) for name, value in manifest["samples"][SIGNATURE]["inputs"].items()}
    shapes = {name: spec.shape.as_list() for name, spec in specs.items()}
    found: dict[str, Any] = {
        "parameters": int(sum(np.prod(variable.shape) for variable in signature.variables)),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }
    for rows in SIZES:
        arrays = filled(samples, shapes, rows, manifest.get("max_length"))
        batch = {name: tf.constant(value, specs[name].dtype) for name, value in arrays.items()}
        found[f"ms_{rows}"] = round(1000 * _median_seconds(signature, batch), 3)
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {**found, "devices": devices, "cpus": cpus}


def _median_seconds(signature: Any, batch: Mapping[str, Any]) -> float:
    """Returns the median of calls, the first of which, that traces, is left out."""
    seconds = []
    for _ in range(CALLS + 1):
        begin = time.perf_counter()
        # Fetching the answer waits for the device.
        _ = [value.numpy() for value in signature(**batch).values()]
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    print(json.dumps(export_cost(Path(sys.argv[1]))))
