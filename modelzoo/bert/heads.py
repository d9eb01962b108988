"""Pre-training heads: masked words and next sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.presets import Preset, resolve
from easytransfer.presets.load_report import LoadReport
from modelzoo.bert import formats
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import Part, assign, extract, initial_value, weight_table
from modelzoo.bert.encoder import ACTIVATIONS

log = logging.getLogger(__name__)


@keras.utils.register_keras_serializable(package="easytransfer")
class BertMlmHead(keras.layers.Layer):
    """Predicts masked tokens with the word embeddings as output matrix (arXiv 1810.04805, section 3.1, task 1).

    Args:
        config: Configuration of the backbone.
        next_sentence: Also predict whether the second text follows the first (task 2).
        seed: Seed of the fresh weights.

    Call arguments:
        sequence_output: [batch, tokens, hidden].
        embedding_table: `backbone.input_embeddings` [vocab, hidden].
        positions: Positions to predict, integer [batch, predictions]; all when None.
        pooled_output: [batch, hidden], needed for `next_sentence`.

    Returns:
        `mlm_logits` float32 [batch, tokens or predictions, vocab] and, with `next_sentence`, `nsp_logits`
        float32 [batch, 2].

    Example:
        >>> BertMlmHead(backbone.config)(backbone(batch)["sequence_output"], backbone.input_embeddings)
    """

    def __init__(
        self, config: BertConfig | dict[str, Any], next_sentence: bool = False, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = BertConfig.from_dict(config) if isinstance(config, dict) else config
        self.parts: tuple[Part, ...] = ("mlm", "nsp") if next_sentence else ("mlm",)
        self.load_report: LoadReport | None = None
        hidden = self.config.hidden_size
        self.transform = keras.layers.Dense(hidden, ACTIVATIONS[self.config.hidden_act], name="transform")
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=self.config.layer_norm_eps, dtype=tf.float32, name="layer_norm"
        )
        self.output_bias = self.add_weight("output_bias", [self.config.vocab_size], initializer="zeros")
        if next_sentence:
            self.nsp_kernel = self.add_weight("nsp_kernel", [2, hidden], initializer="zeros")
            self.nsp_bias = self.add_weight("nsp_bias", [2], initializer="zeros")
        self.transform.build([None, None, hidden])
        self.layer_norm.build([None, None, hidden])
        for row in weight_table(self.config, self.parts):
            self.import_weights({row.name: initial_value(row, seed, self.config.initializer_range)})

    def call(
        self,
        sequence_output: tf.Tensor,
        embedding_table: tf.Tensor,
        positions: tf.Tensor | None = None,
        pooled_output: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """See the class."""
        if positions is not None:
            sequence_output = tf.gather(sequence_output, positions, batch_dims=1)
        words = tf.cast(self.layer_norm(self.transform(sequence_output)), self.compute_dtype)
        logits = tf.einsum("bth,vh->btv", words, tf.cast(embedding_table, words.dtype))
        outputs = {"mlm_logits": tf.cast(logits, tf.float32) + tf.cast(self.output_bias, tf.float32)}
        if "nsp" in self.parts:
            if pooled_output is None:
                raise ValueError("next sentence prediction needs pooled_output")
            kernel = tf.cast(self.nsp_kernel, tf.float32)
            pooled = tf.cast(pooled_output, tf.float32)
            outputs["nsp_logits"] = tf.matmul(pooled, kernel, transpose_b=True) + tf.cast(self.nsp_bias, tf.float32)
        return outputs

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in `convert.py`, such as `transform.kernel`."""
        found = self
        for step in path.split("."):
            found = getattr(found, step)
        return found

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by Google's names and in Google's layout."""
        return extract(self, weight_table(self.config, self.parts))

    def import_weights(self, values: dict[str, np.ndarray]) -> None:
        """Sets the weights present in `values` (Google's names and layout)."""
        assign(self, [row for row in weight_table(self.config, self.parts) if row.name in values], values)

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        *,
        next_sentence: bool = False,
        zoo: str | Path | None = None,
        allow_missing: str | None = None,
    ) -> BertMlmHead:
        """Builds the head of a zoo name or folder and loads its weights strictly.

        Raises:
            ModelError: The model is not found, or its file lacks the head.
        """
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        head = cls(BertConfig.from_folder(preset.folder), next_sentence)
        found = formats.read_folder(preset.folder, config=head.config, parts=head.parts, checkpoint=preset.checkpoint)
        head.load_report = found.report
        log.info("%s", found.report.summary())
        found.report.check(allow_missing)
        head.import_weights(found.values)
        return head

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        base = super().get_config()
        return {**base, "config": self.config.to_dict("ez"), "next_sentence": "nsp" in self.parts}
