"""Warm-up requests: a server runs them before it offers a version, so that the first client does not wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from easytransfer.export.compiled import Rounding
from easytransfer.savedmodel.array_json import take_rows
from easytransfer.savedmodel.messages import new_message
from easytransfer.savedmodel.requests import WARMUP
from easytransfer.savedmodel.signature import Signature


def write_warmup(
    folder: Path,
    name: str,
    signatures: Mapping[str, Signature],
    max_batch_size: int,
    rounding: Rounding | None = None,
) -> None:
    """Writes one request of a single row and one of `max_batch_size` rows for each signature, as a TFRecord.

    Of a compiled network, signatures on arrays get one for each shape it is compiled for; all share the programs.
    Every request is a Predict request: the signatures of TensorFlow 2 exports carry that method name, also those
    whose shapes fit Classify and Regress.
    """
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for signature_name, signature in signatures.items():
            for inputs in _requests(signature, max_batch_size, rounding):
                log = new_message("PredictionLog")
                request = log.predict_log.request
                request.model_spec.name, request.model_spec.signature_name = name, signature_name
                for key, value in inputs.items():
                    request.inputs.add(key=key, value=_tensor(value, signature.inputs[key].dtype))
                writer.write(log.SerializeToString())


def _requests(signature: Signature, max_batch_size: int, rounding: Rounding | None) -> Iterator[dict[str, np.ndarray]]:
    if rounding is None or any(spec.dtype == tf.string for spec in signature.inputs.values()):
        for rows in sorted({1, max_batch_size}):
            yield take_rows(signature.samples, rows)
        return
    free = {name for name, spec in signature.inputs.items() if _has_length(spec)}
    for rows in rounding.rows:
        batch = take_rows(signature.samples, rows)
        for length in rounding.lengths if free else (0,):
            yield {
                name: value[:, np.arange(length) % value.shape[1]] if name in free else value
                for name, value in batch.items()
            }


def _has_length(spec: tf.TensorSpec) -> bool:
    """Whether the second axis is a free length; pictures of any height and width are brought to one size instead."""
    return spec.shape.rank > 1 and spec.shape[1] is None and not (spec.shape.rank > 2 and spec.shape[2] is None)


def _tensor(value: np.ndarray, dtype: tf.DType) -> bytes:
    return tf.make_tensor_proto(value, dtype).SerializeToString()
