"""Signatures for the Classify and Regress calls of TensorFlow Serving, made from a signature on raw text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from .signature import EXAMPLES, Signature


def takes_examples(raw: Signature) -> bool:
    """Returns whether the inputs of a signature are one string a row each, as features of a tf.Example can be."""
    return all(spec.dtype == tf.string and spec.shape.rank == 1 for spec in raw.inputs.values())


def classify_signature(text: Signature, labels: Sequence[str]) -> Signature:
    """Returns a signature for the Classify call.

    Args:
        text: Takes strings [batch] and returns `probabilities` [batch, classes] float32 among others.
        labels: Class names in the order of `probabilities`.

    Returns:
        `inputs` [batch] serialized tf.Example with one bytes feature per input of `text` ->
        `classes` [batch, classes] string and `scores` [batch, classes] float32.
    """

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = text.function(**_features(inputs, text))["probabilities"]
        classes = tf.broadcast_to(tf.constant(list(labels)), tf.shape(scores))
        return {"classes": classes, "scores": scores}

    return _on_examples(classify, text, "serialized tf.Example to all classes with their scores")


def regress_signature(text: Signature, output: str = "score") -> Signature:
    """Returns a signature for the Regress call.

    Args:
        text: Takes strings [batch] and returns `output` [batch] or [batch, 1] float32 among others.
        output: Name of the regressed value in the result of `text`.

    Returns:
        `inputs` [batch] serialized tf.Example with one bytes feature per input of `text` -> `outputs` [batch].
    """

    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": tf.reshape(text.function(**_features(inputs, text))[output], [-1])}

    return _on_examples(regress, text, "serialized tf.Example to one number")


def _features(inputs: tf.Tensor, text: Signature) -> dict[str, tf.Tensor]:
    # No default value: a request that lacks a feature is answered with an error that names it.
    return tf.io.parse_example(inputs, {name: tf.io.FixedLenFeature([], tf.string) for name in text.inputs})


def _on_examples(function, text: Signature, doc: str) -> Signature:
    rows = zip(*text.samples.values(), strict=True)
    samples = np.array([_example(dict(zip(text.samples, row, strict=True))) for row in rows], object)
    return Signature(function, {EXAMPLES: tf.TensorSpec([None], tf.string)}, {EXAMPLES: samples}, doc, text.module)


def _example(row: dict[str, str | bytes]) -> bytes:
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.compat.as_bytes(value)]))
        for name, value in row.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
