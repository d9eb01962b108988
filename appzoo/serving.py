"""Serving signatures every application can use."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.app.contract import App
from easytransfer.data.encoded import EncodedTable
from easytransfer.savedmodel.signature import Signature


def ids_signature(app: App, samples: EncodedTable) -> Signature:
    """Returns the signature `predict_ids`: the arrays of `encode` in, the tensors of the model out.

    Args:
        app: Application with a built model.
        samples: Encoded sample rows, labels not needed.
    """
    batch = app.model_inputs(samples.batch(range(len(samples)), pad_multiple=1))
    specs = {name: tf.TensorSpec([None] * value.ndim, value.dtype) for name, value in batch.items()}

    def predict_ids(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = app.model(inputs, training=False)
        return {name: value for name, value in outputs.items() if tf.is_tensor(value)}

    return Signature(predict_ids, specs, batch, "token ids as `encode` makes them")
