"""XLNet's pre-training head: the words at targets' places."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.presets import Preset, resolve
from easytransfer.presets.load_report import LoadReport
from modelzoo.encoder_weights import assign, extract
from modelzoo.xlnet.config import XlnetConfig
from modelzoo.xlnet.convert import XLNET
from modelzoo.xlnet.formats import read_folder

log = logging.getLogger(__name__)


@keras.utils.register_keras_serializable(package="easytransfer")
class XlnetLmHead(keras.layers.Layer):
    """Scores words with the word embeddings as output matrix and a bias (arXiv 1906.08237, section 2.2, equation 3).

    Args:
        config: Configuration of the backbone.

    Call arguments:
        states: `query_output` [batch, targets, hidden], or `sequence_output` where tokens were masked.
        embedding_table: `backbone.input_embeddings` [vocab, hidden].

    Returns:
        Logits, float32 [batch, targets, vocab].

    Example:
        >>> XlnetLmHead(backbone.config)(outputs["query_output"], backbone.input_embeddings)
    """

    def __init__(self, config: XlnetConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = XlnetConfig.from_dict(config) if isinstance(config, dict) else config
        self.load_report: LoadReport | None = None
        self.output_bias = self.add_weight("output_bias", [self.config.vocab_size], initializer="zeros")

    def call(self, states: tf.Tensor, embedding_table: tf.Tensor) -> tf.Tensor:
        """See the class."""
        states = tf.cast(states, self.compute_dtype)
        logits = tf.einsum("bth,vh->btv", states, tf.cast(embedding_table, states.dtype))
        return tf.cast(logits, tf.float32) + tf.cast(self.output_bias, tf.float32)

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights."""
        return getattr(self, path)

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by Google's names."""
        return extract(self, XLNET.weights(self.config, XLNET.heads))

    def import_weights(self, values: dict[str, np.ndarray]) -> None:
        """Sets the weights present in `values` (Google's names)."""
        assign(self, [row for row in XLNET.weights(self.config, XLNET.heads) if row.name in values], values)

    @classmethod
    def from_preset(
        cls, name_or_path: str | Path | Preset, *, zoo: str | Path | None = None, allow_missing: str | None = None
    ) -> Self:
        """Builds the head of a zoo name or folder and loads its weights strictly.

        Args:
            name_or_path: Model.
            zoo: Root of the ModelZoo.
            allow_missing: Regular expression of weight names that may start from zeros.

        Raises:
            ModelError: The model is not found, or its file lacks the head.
        """
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        head = cls(XlnetConfig.from_folder(preset.folder))
        found = read_folder(preset.folder, config=head.config, parts=XLNET.heads, checkpoint=preset.checkpoint)
        head.load_report = found.report
        log.info("%s", found.report.summary())
        found.report.check(allow_missing)
        head.import_weights(found.values)
        return head

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict("ez")}
