"""Serving signatures: raw text with the tokenizer in the graph, token ids, and tf.Example forms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from appzoo.text_classify.labels import MultiLabel, Score
from easytransfer.export.servable import Signature
from easytransfer.export.signatures import classify_signature, regress_signature
from easytransfer.text.graph import GraphWordPiece

if TYPE_CHECKING:
    from appzoo.text_classify.app import TextClassify

# Rows every export is checked on: plain, empty, non-ASCII, control characters, longer than any limit.
SAMPLE_TEXTS = ("as promised", "", "Überraschend gut, 质量不错 👍", "tabs\tand\x07bells", "very " * 600 + "long")


class TextPredictor(tf.Module):
    """Raw text to named answers."""

    def __init__(self, app: TextClassify, folder: Path) -> None:
        super().__init__(name="text_predictor")
        self.model, self.target = app.model, app.target
        self.tokenizer = GraphWordPiece(
            folder / "vocab.txt", app.tokenizer.lower_case, max_length=app.config.data.sequence_length
        )

    def answer(self, text: tf.Tensor, pair: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Returns `probabilities` [batch, classes], `label` and `score` [batch]; only `score` for regression."""
        logits = self.model(self.tokenizer(text, pair), training=False)["logits"]
        if isinstance(self.target, Score):
            return {"score": logits[:, 0]}
        names = tf.constant(self.target.labels.names)
        if isinstance(self.target, MultiLabel):
            probabilities = tf.sigmoid(logits)
            chosen = probabilities > self.target.threshold
            rows = tf.ragged.boolean_mask(tf.broadcast_to(names, tf.shape(logits)), chosen)
            label = tf.strings.reduce_join(rows, axis=-1, separator=",")
        else:
            probabilities = tf.nn.softmax(logits)
            label = tf.gather(names, tf.argmax(logits, axis=-1))
        return {"probabilities": probabilities, "label": label, "score": tf.reduce_max(probabilities, axis=-1)}


def text_signatures(app: TextClassify, folder: Path) -> dict[str, Signature]:
    """Returns `serving_default`, `predict_ids`, and `classify` or `regress`, for one text or a pair."""
    predictor = TextPredictor(app, folder)
    text = tf.TensorSpec([None], tf.string)
    paired = app.config.data.second_sequence is not None
    samples = np.array(SAMPLE_TEXTS, object)
    if paired:
        function = lambda text_a, text_b: predictor.answer(text_a, text_b)  # noqa: E731
        raw = Signature(
            function,
            {"text_a": text, "text_b": text},
            {"text_a": samples, "text_b": samples[::-1].copy()},
            "raw text pairs",
        )
    else:
        function = lambda text: predictor.answer(text, None)  # noqa: E731
        raw = Signature(function, {"text": text}, {"text": samples}, "raw text")
    signatures = {"serving_default": raw, "predict_ids": _ids_signature(app)}
    if isinstance(app.target, Score):
        signatures["regress"] = regress_signature(raw)
    else:
        signatures["classify"] = classify_signature(raw, app.target.labels.names)
    return signatures


def _ids_signature(app: TextClassify) -> Signature:
    ids = tf.TensorSpec([None, None], tf.int32)
    pairs = list(SAMPLE_TEXTS) if app.config.data.second_sequence else None
    tokens = app.tokenizer.encode(list(SAMPLE_TEXTS), pairs, max_length=app.config.data.sequence_length)
    rows, width = np.arange(len(SAMPLE_TEXTS)), int(tokens.input_ids.lengths.max())
    samples = {
        "input_ids": tokens.input_ids.padded(rows, width),
        "input_mask": (np.arange(width) < tokens.input_ids.lengths[:, None]).astype(np.int32),
        "segment_ids": tokens.segment_ids.padded(rows, width),
    }

    def predict_ids(input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = {"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids}
        return {"logits": app.model(batch, training=False)["logits"]}

    return Signature(predict_ids, dict.fromkeys(samples, ids), samples, "token ids as `encode` makes them")
