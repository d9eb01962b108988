"""BERT encoder: the network of TensorFlow Model Garden with our names, our dropout and our weight files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from official.nlp.modeling.networks.bert_encoder import BertEncoderV2

from easytransfer import keras
from easytransfer.distributed.collectives import Group
from easytransfer.distributed.pipeline import Stage
from easytransfer.errors import ModelError
from easytransfer.layers.dropout import Dropout
from easytransfer.presets import Preset, resolve
from easytransfer.presets.load_report import LoadReport
from easytransfer.run.log import warn
from modelzoo.bert import formats
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BACKBONE, Weight, assign, extract, initial_value, of_encoder, variable, weight_table
from modelzoo.bert.split import SplitBlock
from modelzoo.bert.stage import StageEncoder

if TYPE_CHECKING:
    from easytransfer.text.wordpiece import WordPiece

log = logging.getLogger(__name__)
# Two and not one: with one query per row, 6 of 76 trainings of a 4-layer encoder died of heap corruption inside the
# einsum of oneDNN (TensorFlow 2.20, float32); with two, none of 46.
_POOLED_RANGE = 2


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """Returns the tanh approximation of gelu (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS = {"gelu": keras.activations.gelu, "gelu_tanh": gelu_tanh, "relu": keras.activations.relu}


@keras.utils.register_keras_serializable(package="easytransfer")
class BertBackbone(keras.Model):
    """Turns token ids into vectors (Devlin et al. 2019, arXiv 1810.04805, section 3).

    The network is `BertEncoderV2` of TensorFlow Model Garden; its dropout layers are replaced by
    `easytransfer.layers.dropout.Dropout`, so that a resumed run repeats the same masks.

    Args:
        config: Sizes and settings.
        seed: Seed of the fresh weights; None leaves zeros for the caller to fill.
        tensor: Workers that split every encoder layer; see `SplitBlock`.
        stage: Part of the depth that this worker holds; see `StageEncoder`. None holds all.

    Call arguments:
        inputs: `input_ids`, `input_mask` and (optional) `segment_ids`, each integer [batch, tokens], and (optional)
            `added_embeddings` [batch, tokens, hidden], added to the embeddings before their LayerNorm; other keys
            are ignored, so a whole training batch can be passed.
        training: Whether dropout acts.
        pooled_only: Compute the last layer for the first two tokens only, which saves five sixths of that layer's
            matrix products (14% of a six-layer encoder); the result then holds nothing but `pooled_output`.

    Returns:
        `sequence_output` [batch, tokens, hidden], `pooled_output` [batch, hidden] (tanh of a dense layer on the first
        token) and `hidden_states`, a tuple of the embeddings and every layer's output; all float32. Of a pipeline the
        last stage has no `hidden_states`, the others have nothing but `sent`.

    Example:
        >>> backbone = BertBackbone(BertConfig(vocab_size=100, hidden_size=32, num_attention_heads=4))
        >>> backbone({"input_ids": tf.ones([2, 8], tf.int32), "input_mask": tf.ones([2, 8], tf.int32)})
    """

    def __init__(
        self,
        config: BertConfig | Mapping[str, Any],
        seed: int | None = 0,
        *,
        tensor: Group | None = None,
        stage: Stage | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(config, Mapping):
            config = BertConfig.from_dict(dict(config))
        self.config = config
        self.load_report: LoadReport | None = None
        self.stage = stage
        self.encoder = _build_encoder(config, tensor, stage)
        self.built = True
        if seed is not None:
            self.fresh_weights(seed)

    def call(
        self, inputs: Mapping[str, tf.Tensor], training: bool | None = False, pooled_only: bool = False
    ) -> dict[str, Any]:
        """See the class."""
        ids = tf.convert_to_tensor(inputs["input_ids"])
        segments = inputs.get("segment_ids")
        words = {
            "input_word_ids": ids,
            "input_mask": inputs["input_mask"],
            "input_type_ids": tf.zeros_like(ids) if segments is None else segments,
        }
        if "added_embeddings" in inputs:
            embedded = self.encoder.get_embedding_layer()(ids)
            words["input_word_embeddings"] = embedded + tf.cast(inputs["added_embeddings"], embedded.dtype)
        # The encoder takes the number of positions of its last layer only as an attribute.
        self.encoder._output_range = _POOLED_RANGE if pooled_only else None
        try:
            with tf.control_dependencies(_input_checks(ids, inputs["input_mask"], segments, self.config)):
                outputs = self.encoder(words, training=training)
        finally:
            self.encoder._output_range = None
        if "sent" in outputs:
            return outputs
        pooled = tf.cast(outputs["pooled_output"], tf.float32)
        if pooled_only:
            return {"pooled_output": pooled}
        if self.stage is not None:
            return {"sequence_output": tf.cast(outputs["encoder_outputs"][-1], tf.float32), "pooled_output": pooled}
        states = tuple(tf.cast(x, tf.float32) for x in (outputs["word_embeddings"], *outputs["encoder_outputs"]))
        return {"sequence_output": states[-1], "pooled_output": pooled, "hidden_states": states}

    def example_outputs(self) -> np.ndarray:
        """Returns vectors of ids from the whole vocabulary, to compare models and to see whether a file is damaged."""
        length = min(8, self.config.max_position_embeddings)
        ids = np.linspace(0, self.config.vocab_size - 1, 2 * length).astype(np.int32).reshape(2, length)
        batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
        return self(batch)["pooled_output"].numpy()

    @property
    def embedding_table(self) -> tf.Variable:
        """Word embeddings [vocab, hidden], for heads that share them."""
        return self.encoder.get_embedding_table()

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns variables by depth: embeddings with their LayerNorm, each encoder layer, the pooler.

        Depths of other stages of a pipeline are empty.
        """
        groups: list[list[tf.Variable]] = [[] for _ in range(self.config.num_hidden_layers + 2)]
        for row in self._table():
            groups[self._depth(row)].append(variable(self, row))
        return groups

    def _depth(self, row: Weight) -> int:
        if row.part == "pooler":
            return self.config.num_hidden_layers + 1
        return int(row.name.split("layer_")[1].split("/")[0]) + 1 if "/layer_" in row.name else 0

    def _table(self) -> list[Weight]:
        """Returns the weights that are here: all, or those of a stage."""
        table, stage, layers = weight_table(self.config), self.stage, self.config.num_hidden_layers
        if stage is None:
            return table
        depths = {depth + 1 for depth in stage.share(layers)}
        depths |= {0} if stage.is_first else set()
        depths |= {layers + 1} if stage.is_last else set()
        return [row for row in table if self._depth(row) in depths]

    # Weights -----------------------------------------------------------------------------------------------

    def fresh_weights(self, seed: int = 0, names: list[str] | None = None) -> None:
        """Sets weights to random values that depend only on the seed and the weight's name.

        Args:
            seed: Seed.
            names: Google names of the weights to set; all when None.
        """
        table = [row for row in self._table() if names is None or row.name in names]
        for row in table:
            assign(self, [row], {row.name: initial_value(row, seed, self.config.initializer_range)})

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights that are here by Google's names and in Google's layout."""
        return extract(self, self._table())

    def import_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the weights present in `values` (Google's names and layout)."""
        assign(self, [row for row in self._table() if row.name in values], values)

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        *,
        zoo: str | Path | None = None,
        weights: bool = True,
        seed: int = 0,
        allow_missing: str | None = None,
        tensor: Group | None = None,
        stage: Stage | None = None,
        **overrides: Any,
    ) -> BertBackbone:
        """Builds the encoder of a zoo name or folder and loads its weights strictly.

        Args:
            name_or_path: Zoo name, alias, folder or TensorFlow checkpoint prefix.
            zoo: Root of the ModelZoo.
            weights: False for random weights of the same architecture.
            seed: Seed of random weights.
            allow_missing: Regular expression of weight names that may start from random values.
            tensor: Workers that split every encoder layer.
            stage: Part of the depth that this worker holds.
            **overrides: Changed configuration values, such as `hidden_dropout_prob`.

        Raises:
            ModelError: The model is not found, has no weights, or they do not fit.
            ConfigError: An override is not accepted, or the layers cannot be split over so many workers.
        """
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        config = BertConfig.from_folder(preset.folder).replace(**overrides)
        if not weights:
            return cls(config, seed=seed, tensor=tensor, stage=stage)
        backbone = cls(config, seed=None, tensor=tensor, stage=stage)
        found = formats.read_folder(preset.folder, config=config, parts=BACKBONE, checkpoint=preset.checkpoint)
        backbone.load_report = found.report
        log.info("%s", found.report.summary())
        found.report.check(allow_missing or preset.facts.get("allow_missing"))
        _tell(found.report, config)
        if found.report.allowed:
            backbone.fresh_weights(seed, found.report.allowed)
        backbone.import_weights(found.values)
        return backbone

    def save_to_preset(
        self,
        folder: str | Path,
        tokenizer: WordPiece | None = None,
        *,
        facts: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes config.json, model.safetensors, the vocabulary and the manifest zoo.json.

        Args:
            folder: New folder.
            tokenizer: Tokenizer whose vocabulary belongs to the weights.
            facts: Entries of the manifest, such as licence and origin.
            overwrite: Replace an existing folder.
        """
        formats.write_folder(
            folder, "hf", self.config, self.export_weights(), tokenizer=tokenizer, facts=facts, overwrite=overwrite
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"config": self.config.to_dict("ez"), "name": self.name}


BACKBONE_CLASS = BertBackbone


def _tell(report: LoadReport, config: BertConfig) -> None:
    """Warns of weights that the file lacks, holds twice, or holds without a place for them in the encoder."""
    if report.allowed:
        warn(f"random start values for: {', '.join(report.allowed)}")
    if report.repeated:
        warn(f"{report.source} holds {len(report.repeated)} weights twice, with equal values: {report.repeated[0]}")
    unused = of_encoder(report.unexpected)
    if unused:
        warn(
            f"{report.source}: {len(unused)} tensors of the encoder are not used, the first is {unused[0]}: "
            f"num_hidden_layers={config.num_hidden_layers} and the other settings have no place for them"
        )


def _build_encoder(config: BertConfig, tensor: Group | None, stage: Stage | None) -> BertEncoderV2:
    """Returns the built Model Garden encoder with our dropout and the configured epsilon, its layers split or not."""
    kind = BertEncoderV2 if stage is None else partial(StageEncoder, stage)
    encoder = kind(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_sequence_length=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        inner_dim=config.intermediate_size,
        inner_activation=ACTIVATIONS[config.hidden_act],
        initializer="zeros",
        return_word_embeddings=True,
        name="encoder",
    )
    # The encoder fixes epsilon at 1e-12 and has no argument for it; it is read when the layers are built.
    encoder._embedding_norm_layer.epsilon = config.layer_norm_eps
    part = 0
    if tensor is not None and tensor.size > 1:
        part = tensor.rank
        for i, block in enumerate(encoder.transformer_layers):
            activation = ACTIVATIONS[config.hidden_act]
            encoder.transformer_layers[i] = SplitBlock(config, tensor, activation, name=block.name)
    for block in encoder.transformer_layers:
        block._norm_epsilon = config.layer_norm_eps
    encoder._embedding_dropout = Dropout(config.hidden_dropout_prob, name="embedding_dropout")
    example = tf.zeros([1, 1], tf.int32)
    encoder({"input_word_ids": example, "input_mask": example, "input_type_ids": example})
    for block in encoder.transformer_layers:
        if not block.built:
            continue  # of another stage
        _replace_dropout(block, config, part)
        if isinstance(block, SplitBlock):
            block.mark_parts()
    return encoder


def _replace_dropout(block: keras.layers.Layer, config: BertConfig, part: int) -> None:
    attention = block._attention_layer
    # The workers' heads have masks of their own; all else is the same on every worker, so its masks must be.
    attention._dropout_layer = Dropout(config.attention_probs_dropout_prob, part, name="probs_dropout")
    # Model Garden drops the attention output at the rate of the probabilities; BERT uses the hidden rate there.
    block._attention_dropout = Dropout(config.hidden_dropout_prob, name="attention_dropout")
    block._inner_dropout_layer = Dropout(0.0, name="inner_dropout")
    block._output_dropout = Dropout(config.hidden_dropout_prob, name="output_dropout")


def _input_checks(
    ids: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor | None, config: BertConfig
) -> list[tf.Operation]:
    """Returns the checks that cannot be made while tracing; makes the others now.

    Without them a GPU reads zeros for an unknown id, a segment that the model has no row for adds nothing, inputs in
    the wrong order are not noticed, and a long text fails with a broadcasting message.
    """
    limit = config.max_position_embeddings
    if ids.shape.rank != 2:
        raise ModelError("input_ids must have the shape [batch, tokens]", received=str(ids.shape))
    if ids.shape[1] is not None and ids.shape[1] > limit:
        raise ModelError(
            "text longer than the model's positions", received=ids.shape[1], accepted=f"up to {limit} tokens"
        )
    checks = []
    if ids.shape[1] is None:
        message = f"texts must have at most max_position_embeddings = {limit} tokens"
        checks.append(tf.debugging.assert_less_equal(tf.shape(ids)[1], limit, message))
    vocabulary = f"token ids must lie in [0, vocab_size = {config.vocab_size}); is this the model's own vocabulary?"
    inside = tf.reduce_all((ids >= 0) & (ids < config.vocab_size))
    checks.append(tf.debugging.Assert(inside, [vocabulary]))
    mask = tf.convert_to_tensor(mask)
    checks.append(tf.debugging.Assert(tf.reduce_all((mask == 0) | (mask == 1)), ["input_mask must be 0 or 1"]))
    if segments is not None:
        segments, kinds = tf.convert_to_tensor(segments), config.type_vocab_size
        known = tf.reduce_all((segments >= 0) & (segments < kinds))
        checks.append(tf.debugging.Assert(known, [f"segment ids must lie in [0, type_vocab_size = {kinds})"]))
    return [check for check in checks if check is not None]
