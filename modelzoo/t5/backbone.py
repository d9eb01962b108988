"""T5: ids of a text to states, and to the logits of another text, taught or written word by word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.layers.lora import Projection
from easytransfer.presets import Preset
from easytransfer.presets.load_report import LoadReport
from easytransfer.text.decoding import Cache, NextLogits
from modelzoo.backbone import Backbone
from modelzoo.t5 import formats
from modelzoo.t5.config import T5Config
from modelzoo.t5.convert import Weight, initial_value, weight_table
from modelzoo.t5.network import Stack

if TYPE_CHECKING:
    from easytransfer.text.wordpiece import WordPiece


@keras.utils.register_keras_serializable(package="easytransfer")
class T5Backbone(Backbone):
    """Encoder and decoder with one embedding table (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

    Args:
        config: Sizes and settings.
        seed: Seed of the fresh weights; None leaves zeros for the caller to fill.

    Call arguments:
        inputs: `input_ids` and `input_mask`, integer [batch, places]; `decoder_ids`, integer [batch, places], what the
            decoder has seen before each place, see `shifted`; without it the encoder answers alone.
        training: Whether dropout is on.

    Returns:
        `sequence_output` float32 [batch, places, d_model], and with `decoder_ids` `logits` float32 [batch, places,
        vocab].

    Raises:
        ModelError: Ids have another rank than 2.

    Example:
        >>> network = T5Backbone.from_preset("my-t5")
        >>> network({"input_ids": ids, "input_mask": mask, "decoder_ids": network.shifted(target)})["logits"]
    """

    def __init__(self, config: T5Config | dict[str, Any], *, seed: int | None = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = T5Config.from_dict(config) if isinstance(config, dict) else config
        width = self.config.d_model
        self.shared = self.add_weight("shared", [self.config.vocab_size, width], initializer="zeros")
        self.encoder = Stack(self.config, is_decoder=False, name="encoder")
        self.decoder = Stack(self.config, is_decoder=True, name="decoder")
        self.head = None
        if not self.config.tie_word_embeddings:
            self.head = self.add_weight("head", [width, self.config.vocab_size], initializer="zeros")
        self.built = True
        if seed is not None:
            self.fresh_weights(seed)

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool | None = False) -> dict[str, tf.Tensor]:
        """See the class."""
        states = self.encoded(inputs, training)
        found = {"sequence_output": tf.cast(states, tf.float32)}
        if "decoder_ids" not in inputs:
            return found
        before = self._embedded(inputs["decoder_ids"])
        memory = self.decoder.memory(states)
        decoded = self.decoder(before, memory=memory, memory_mask=inputs["input_mask"], training=bool(training))
        return {**found, "logits": self._logits(decoded, self._output_table())}

    def encoded(self, inputs: Mapping[str, tf.Tensor], training: bool | None = False) -> tf.Tensor:
        """Returns the encoder's states [batch, places, d_model], in the type that the network computes in."""
        return self.encoder(self._embedded(inputs["input_ids"]), inputs["input_mask"], training=bool(training))

    def shifted(self, target: tf.Tensor) -> tf.Tensor:
        """Returns what the decoder has seen before each id of a text: its start, then the text without its last id."""
        return tf.pad(target, [[0, 0], [1, 0]], constant_values=self.config.decoder_start_token_id)[:, :-1]

    def _embedded(self, ids: tf.Tensor) -> tf.Tensor:
        ids = tf.convert_to_tensor(ids)
        if ids.shape.rank != 2:
            raise ModelError("ids must have the shape [batch, places]", received=str(ids.shape))
        message = (
            f"token ids must lie in [0, vocab_size = {self.config.vocab_size}); is this the model's own tokenizer?"
        )
        inside = tf.reduce_all((ids >= 0) & (ids < self.config.vocab_size))
        check = tf.debugging.Assert(inside, [message])
        with tf.control_dependencies([check] if check is not None else []):
            return tf.cast(tf.gather(self._table(), ids), self.compute_dtype)

    def _table(self) -> tf.Tensor:
        # Not the variable: once rows are gathered from that, TensorFlow copies the whole table whenever it is read.
        return tf.convert_to_tensor(self.shared)

    def _output_table(self) -> tf.Tensor:
        return tf.cast(self._table() if self.head is None else self.head, tf.float32)

    def _logits(self, states: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        states = tf.cast(states, tf.float32)
        if self.config.scale_decoder_outputs:
            states *= self.config.d_model**-0.5
        if self.head is None:
            # Of two matrices: a product of three axes with a table would hold the table's gradient for every row.
            flat = tf.reshape(states, [-1, self.config.d_model])
            logits = tf.matmul(flat, table, transpose_b=True)
            return tf.reshape(logits, tf.concat([tf.shape(states)[:-1], [self.config.vocab_size]], 0))
        return tf.tensordot(states, table, 1)

    # Writing ---------------------------------------------------------------------------------------------------

    def writer(self, inputs: Mapping[str, tf.Tensor], copies: int = 1) -> tuple[NextLogits, Cache]:
        """Returns what `easytransfer.text.decoding.written` takes: the network after texts, and its cache.

        Args:
            inputs: `input_ids` and `input_mask`, integer [rows, places].
            copies: Of each text, side by side, for beams.
        """
        states = tf.cast(self.encoded(inputs), tf.float32)
        mask = tf.cast(inputs["input_mask"], tf.float32)
        states, mask = (tf.repeat(x, copies, axis=0) for x in (states, mask))
        memory = self.decoder.memory(states)
        # Read outside the loop that writes.
        words, output = tf.cast(self._table(), tf.float32), self._output_table()

        def next_logits(last: tf.Tensor, place: tf.Tensor, cache: Cache) -> tuple[tf.Tensor, Cache]:
            embedded = tf.gather(words, last)
            states, longer = self.decoder.one(embedded, place, cache, memory, mask)
            return self._logits(states, output), longer

        empty = tf.zeros([tf.shape(states)[0], self.config.num_heads, 0, self.config.d_kv])
        return next_logits, [(empty, empty) for _ in range(self.config.num_decoder_layers)]

    # Family ----------------------------------------------------------------------------------------------------

    @property
    def input_embeddings(self) -> tf.Variable:
        """Embeddings [vocab, d_model] of encoder and decoder."""
        return self.shared

    def example_outputs(self) -> np.ndarray:
        """Returns logits of ids from the whole vocabulary, to compare models and to see whether a file is damaged."""
        ids = np.linspace(0, self.config.vocab_size - 1, 16).astype(np.int32).reshape(2, 8)
        batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "decoder_ids": self.shifted(ids[:, ::-1])}
        return self(batch)["logits"].numpy()

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns variables by depth: the embeddings, each encoder block, each decoder block, the output matrix.

        Relative positions belong to the first block of their side, last norms to the last one.
        """
        groups = [[self.shared]]
        for stack in (self.encoder, self.decoder):
            blocks = [list(block.trainable_variables) for block in stack.blocks]
            blocks[0].append(stack.positions)
            blocks[-1].append(stack.norm.scale)
            groups += blocks
        return [*groups, [] if self.head is None else [self.head]]

    def projections(self) -> dict[str, list[Projection]]:
        """Returns the kernels that adapters may change, of encoder and decoder; a gated feed-forward part has two."""
        found: dict[str, list[Projection]] = {}
        blocks = [*self.encoder.blocks, *self.decoder.blocks]
        for depth, block in enumerate(blocks, start=1):
            for name, places in block.projections(depth).items():
                found.setdefault(name, []).extend(places)
        return found

    def fresh_weights(self, seed: int = 0, names: Iterable[str] | None = None) -> None:
        """Sets weights to random values that depend only on the seed and the weight's name, as published."""
        wanted = None if names is None else set(names)
        for row in weight_table(self.config):
            if wanted is None or row.name in wanted:
                self._variable(row).assign(initial_value(row, seed))

    def weight_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the weights by Hugging Face's names, kernels as [input, output]."""
        return {row.name: tf.TensorSpec(row.shape, tf.float32) for row in weight_table(self.config)}

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by Hugging Face's names, kernels as [input, output]."""
        return {row.name: self._variable(row).numpy() for row in weight_table(self.config)}

    def assign_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the weights of these names."""
        for row in weight_table(self.config):
            if row.name in values:
                self._variable(row).assign(values[row.name])

    def _variable(self, row: Weight) -> tf.Variable:
        found: Any = self
        for part in row.path.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found

    @classmethod
    def from_folder(cls, folder: Path, *, seed: int, fresh: bool, **changes: Any) -> T5Backbone:
        """Builds the network that a folder describes.

        Args:
            folder: Model folder.
            seed: Seed of random weights.
            fresh: Whether the weights are random; else they follow.
            **changes: Changed configuration values, such as `dropout_rate`.

        Raises:
            ModelError: The folder has no configuration of a T5.
            ConfigError: A change is not accepted.
        """
        return cls(T5Config.from_folder(folder).replace(**changes), seed=seed if fresh else None)

    def read_weights(self, preset: Preset) -> tuple[dict[str, np.ndarray], LoadReport]:
        """Returns the weights of a folder by Hugging Face's names, and the report."""
        found = formats.read_folder(preset.folder, config=self.config, checkpoint=preset.checkpoint)
        return found.values, found.report

    def write_files(self, folder: Path, tokenizer: WordPiece | None) -> None:
        """Writes config.json, model.safetensors and the tokenizer, in Hugging Face's form."""
        formats.write_files(folder, "hf", self.config, self.export_weights(), tokenizer=tokenizer)

    def facts(self) -> dict[str, Any]:
        """Returns the sizes under the names that presets.json uses."""
        return {"type": "t5", **formats.size_facts(self.config)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"config": self.config.to_dict(), "name": self.name}


BACKBONE_CLASS = T5Backbone
