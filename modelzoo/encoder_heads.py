"""Pre-training heads of encoders: masked words, and pairs of texts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.presets import Preset, resolve
from easytransfer.presets.load_report import LoadReport
from modelzoo.encoder_config import EncoderConfig
from modelzoo.encoder_files import EncoderFiles
from modelzoo.encoder_network import ACTIVATIONS
from modelzoo.encoder_weights import EncoderFamily, Weight, assign, extract, initial_value

log = logging.getLogger(__name__)


class PretrainingHead(keras.layers.Layer):
    """Predicts masked tokens with the word embeddings as output matrix (BERT, arXiv 1810.04805, section 3.1, task 1).

    A family sets `family`; the second of its heads, if any, predicts how the two texts of a pair belong together.

    Args:
        config: Configuration of the backbone.
        pairs: Also predict how the second text follows the first.
        seed: Seed of the fresh weights.

    Call arguments:
        sequence_output: [batch, tokens, hidden].
        embedding_table: `backbone.input_embeddings` [vocab, width].
        positions: Positions to predict, integer [batch, predictions]; all when None.
        pooled_output: [batch, hidden], needed for `pairs`.

    Returns:
        `mlm_logits` float32 [batch, tokens or predictions, vocab] and, with `pairs`, float32 [batch, 2] under the name
        of the head: `nsp_logits` for the next sentence, `sop_logits` for the order of sentences.
    """

    family: ClassVar[EncoderFamily]

    def __init__(
        self, config: EncoderConfig | dict[str, Any], pairs: bool = False, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = self.family.config_class.from_dict(config) if isinstance(config, dict) else config
        if pairs and len(self.family.heads) == 1:
            raise ModelError(f"models of the family {self.family.name} predict nothing about pairs of texts")
        self.parts = self.family.heads if pairs else self.family.heads[:1]
        self.load_report: LoadReport | None = None
        hidden, width = self.config.hidden_size, self.config.word_width
        self.transform = keras.layers.Dense(width, ACTIVATIONS[self.config.head_act], name="transform")
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=self.config.layer_norm_eps, dtype=tf.float32, name="layer_norm"
        )
        self.output_bias = self.add_weight("output_bias", [self.config.vocab_size], initializer="zeros")
        if pairs:
            self.pair_kernel = self.add_weight("pair_kernel", [2, hidden], initializer="zeros")
            self.pair_bias = self.add_weight("pair_bias", [2], initializer="zeros")
        self.transform.build([None, None, hidden])
        self.layer_norm.build([None, None, width])
        for row in self._table():
            self.import_weights({row.name: initial_value(row, seed, self.config.initializer_range)})

    def _table(self) -> list[Weight]:
        return self.family.weights(self.config, self.parts)

    def call(
        self,
        sequence_output: tf.Tensor,
        embedding_table: tf.Tensor,
        positions: tf.Tensor | None = None,
        pooled_output: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """See the class."""
        words = self.states(sequence_output, positions)
        logits = tf.einsum("bth,vh->btv", words, tf.cast(embedding_table, words.dtype))
        outputs = {"mlm_logits": tf.cast(logits, tf.float32) + tf.cast(self.output_bias, tf.float32)}
        return {**outputs, **self.pair_logits(pooled_output)}

    def states(self, sequence_output: tf.Tensor, positions: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what the embedding table is multiplied with, [batch, tokens or predictions, width]."""
        if positions is not None:
            sequence_output = tf.gather(sequence_output, positions, batch_dims=1)
        return tf.cast(self.layer_norm(self.transform(sequence_output)), self.compute_dtype)

    def pair_logits(self, pooled_output: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Returns the logits of pairs under the name of the head; nothing without `pairs`."""
        if len(self.parts) == 1:
            return {}
        if pooled_output is None:
            raise ValueError(f"{self.parts[1]} needs pooled_output")
        kernel = tf.cast(self.pair_kernel, tf.float32)
        logits = tf.matmul(tf.cast(pooled_output, tf.float32), kernel, transpose_b=True)
        return {f"{self.parts[1]}_logits": logits + tf.cast(self.pair_bias, tf.float32)}

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights, such as `transform.kernel`."""
        found = self
        for step in path.split("."):
            found = getattr(found, step)
        return found

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by Google's names and in Google's layout."""
        return extract(self, self._table())

    def import_weights(self, values: dict[str, np.ndarray]) -> None:
        """Sets the weights present in `values` (Google's names and layout)."""
        assign(self, [row for row in self._table() if row.name in values], values)

    @classmethod
    def load(cls, name_or_path: str | Path | Preset, pairs: bool, zoo: str | Path | None, missing: str | None) -> Self:
        """Builds the head of a zoo name or folder and loads its weights strictly.

        Args:
            name_or_path: Model.
            pairs: See the class.
            zoo: Root of the ModelZoo.
            missing: Regular expression of weight names that may start from random values.

        Raises:
            ModelError: The model is not found, or its file lacks the head.
        """
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        head = cls(cls.family.config_class.from_folder(preset.folder), pairs)
        found = EncoderFiles(cls.family).read_folder(
            preset.folder, config=head.config, parts=head.parts, checkpoint=preset.checkpoint
        )
        head.load_report = found.report
        log.info("%s", found.report.summary())
        found.report.check(missing)
        head.import_weights(found.values)
        return head
