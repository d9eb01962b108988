"""Check 6: the warm-up requests parse, name signatures of the export, and run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from ...savedmodel.calling import Caller
from ...savedmodel.failure import CheckFailed
from ...savedmodel.requests import WARMUP, read_requests


def check_requests(folder: Path, callers: Mapping[str, Caller], manifest: Mapping[str, Any]) -> str:
    """Runs every warm-up request.

    Raises:
        CheckFailed: A record is broken, or a signature lacks a request of one row or of `max_batch_size` rows.
    """
    sizes: dict[str, set[int]] = {name: set() for name in manifest["signatures"]}
    requests = read_requests(folder)
    for number, request in enumerate(requests):
        name = request.model_spec.signature_name
        if name not in sizes:
            raise CheckFailed(f"{WARMUP}: record {number} names the unknown signature {name!r}")
        inputs = {
            entry.key: tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value)) for entry in request.inputs
        }
        if set(inputs) != set(manifest["signatures"][name]["inputs"]):
            raise CheckFailed(f"{WARMUP}: record {number} has the wrong inputs for {name}: {sorted(inputs)}")
        callers[name](inputs)
        sizes[name].add(len(next(iter(inputs.values()))))
    for name, seen in sizes.items():
        absent = {1, manifest["max_batch_size"]} - seen
        if absent:
            raise CheckFailed(f"{WARMUP}: no request of {name} with a batch of {sorted(absent)}")
    return f"{len(requests)} requests"
