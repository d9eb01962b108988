"""The warm-up requests of an export, as a server reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from .failure import CheckFailed
from .messages import new_message

WARMUP = "assets.extra/tf_serving_warmup_requests"
# TensorFlow Serving refuses to load a model with more records.
MAX_RECORDS = 1000


def read_requests(folder: Path) -> list[Any]:
    """Returns the `PredictRequest` of every record.

    Raises:
        CheckFailed: The file is not a TFRecord of PredictionLog messages with a predict request each.
    """
    requests = []
    try:
        for record in tf.data.TFRecordDataset(str(folder / WARMUP)).as_numpy_iterator():
            log = new_message("PredictionLog")
            log.ParseFromString(record)
            requests.append(log.predict_log.request)
    except Exception as error:  # DataLossError, or DecodeError of whichever protobuf release is installed
        raise CheckFailed(f"{WARMUP} is damaged after {len(requests)} records: {_first_line(error)}") from error
    if not 1 <= len(requests) <= MAX_RECORDS:
        raise CheckFailed(f"{WARMUP} must have 1 to {MAX_RECORDS} records, not {len(requests)}")
    return requests


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
