"""Encoders: token ids to vectors, with our names, our dropout and our weight files around Model Garden's network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from easytransfer.distributed.collectives import Group
from easytransfer.distributed.pipeline import Stage
from easytransfer.errors import ModelError
from easytransfer.layers.lora import Projection
from easytransfer.presets import Preset
from easytransfer.presets.load_report import LoadReport
from modelzoo.backbone import Backbone
from modelzoo.encoder_config import EncoderConfig
from modelzoo.encoder_files import EncoderFiles
from modelzoo.encoder_network import Encoder
from modelzoo.encoder_weights import BACKBONE, EncoderFamily, Weight, assign, extract, initial_value

if TYPE_CHECKING:
    from easytransfer.text.tokenizer import Tokenizer

# Two and not one: with one query per row, 6 of 76 trainings of a 4-layer encoder died of heap corruption inside the
# einsum of oneDNN (TensorFlow 2.20, float32); with two, none of 46.
_POOLED_RANGE = 2


class EncoderBackbone(Backbone):
    """Turns token ids into vectors.

    A family sets `family`. The network is `Encoder`; its dropout layers are `easytransfer.layers.dropout.Dropout`, so
    that a resumed run repeats the same masks.

    Args:
        config: Sizes and settings.
        seed: Seed of the fresh weights; None leaves zeros for the caller to fill.
        tensor: Workers that split every encoder layer; see `SplitBlock`.
        stage: Part of the depth that this worker holds; see `Encoder`. None holds all.

    Call arguments:
        inputs: `input_ids` and (optional) `segment_ids`, each integer [batch, tokens], or `embeddings` [batch, tokens,
            width of the word embeddings] in their place, the sum that `embedded` gives for ids; `input_mask`, integer
            [batch, tokens], or [batch, tokens, tokens]: 1 where the first token looks at the second; (optional)
            `added_embeddings`, as wide as `embeddings`, added to the embeddings before their LayerNorm. Other keys are
            ignored, so a whole training batch can be passed.
        training: Whether dropout acts.
        pooled_only: Compute the last layer for the first two tokens only, which saves five sixths of that layer's
            matrix products (14% of a six-layer encoder); the result then holds nothing but `pooled_output`.

    Returns:
        `sequence_output` [batch, tokens, hidden], `summary_state` [batch, hidden], that of the token that stands for
        the whole row, see `summary_of`, `pooled_output` [batch, hidden] (tanh of a dense layer on it) and
        `hidden_states`, a tuple of the embeddings and every layer's output; all float32. Of a pipeline the last stage
        has no `hidden_states`, the others have nothing but `sent`.
    """

    family: ClassVar[EncoderFamily]

    def __init__(
        self,
        config: EncoderConfig | Mapping[str, Any],
        seed: int | None = 0,
        *,
        tensor: Group | None = None,
        stage: Stage | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(config, Mapping):
            config = self.family.config_class.from_dict(dict(config))
        self.config, self.stage = config, stage
        self.encoder = self._network(tensor, stage)
        self.built = True
        if seed is not None:
            self.fresh_weights(seed)

    def _network(self, tensor: Group | None, stage: Stage | None) -> Any:
        """Returns the network, whose method `variable` finds a variable by its path in the table of weights."""
        return Encoder(self.config, tensor, stage)

    def call(
        self, inputs: Mapping[str, tf.Tensor], training: bool | None = False, pooled_only: bool = False
    ) -> dict[str, Any]:
        """See the class."""
        words, checks = self._checked(inputs)
        with tf.control_dependencies(checks):
            outputs = self.encoder(words, first_tokens=_POOLED_RANGE if pooled_only else None)
        if "sent" in outputs:
            return outputs
        pooled = tf.cast(outputs["pooled_output"], tf.float32)
        if pooled_only:
            return {"pooled_output": pooled}
        states = tuple(tf.cast(x, tf.float32) for x in outputs["hidden_states"])
        summary = self.summary_of(states[-1], inputs["input_mask"])
        found = {"sequence_output": states[-1], "summary_state": summary, "pooled_output": pooled}
        return found if self.stage is not None else {**found, "hidden_states": states}

    def summary_of(self, states: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
        """Returns the states [batch, width] of the tokens that stand for whole rows: the first ones.

        Args:
            states: Of all tokens, [batch, tokens, width].
            input_mask: As in a call.
        """
        return states[:, 0]

    def embedded(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the sum of word, position and segment embeddings [batch, tokens, width], before their LayerNorm.

        A task puts other vectors beside them, such as those of regions of an image, and calls the encoder with
        `embeddings`.
        """
        return self.encoder.embedded(self._checked({"input_mask": tf.ones_like(inputs["input_ids"]), **inputs})[0])

    def attentions(self, hidden_states: Sequence[tf.Tensor], input_mask: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the attention probabilities of every layer, each [batch, heads, tokens, tokens], without dropout.

        Args:
            hidden_states: What a call returned under this name.
            input_mask: As in that call.

        Raises:
            ModelError: The family gives none.
        """
        if not hasattr(self.encoder, "attentions"):
            raise ModelError(f"encoders of the family {self.family.name} give no attentions", accepted="one like BERT")
        states = tuple(tf.cast(x, self.compute_dtype) for x in hidden_states)
        mask = tf.cast(input_mask, self.compute_dtype)
        if mask.shape.rank == 2:
            mask = tf.tile(mask[:, tf.newaxis], [1, tf.shape(mask)[1], 1])
        return tuple(tf.cast(x, tf.float32) for x in self.encoder.attentions(states, mask))

    def _checked(self, inputs: Mapping[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], list[tf.Operation]]:
        """Returns the inputs of the encoder, and checks that can only be made when they are known."""
        mask = tf.convert_to_tensor(inputs["input_mask"])
        added = {"added_embeddings": inputs["added_embeddings"]} if "added_embeddings" in inputs else {}
        if "embeddings" in inputs:
            if "input_ids" in inputs:
                raise ModelError("input_ids and embeddings both say what the tokens are", fix="leave out one of them")
            embeddings = tf.convert_to_tensor(inputs["embeddings"])
            return {"embeddings": embeddings, "input_mask": mask, **added}, _mask_checks(mask)
        ids, segments = tf.convert_to_tensor(inputs["input_ids"]), inputs.get("segment_ids")
        checks = _input_checks(ids, segments, self.config) + _mask_checks(mask)
        segments = tf.zeros_like(ids) if segments is None else segments
        return {"input_ids": ids, "segment_ids": segments, "input_mask": mask, **added}, checks

    def example_outputs(self) -> np.ndarray:
        """Returns vectors of ids from the whole vocabulary, to compare models and to see whether a file is damaged."""
        length = min(8, self.config.max_tokens)
        ids = np.linspace(0, self.config.vocab_size - 1, 2 * length).astype(np.int32).reshape(2, length)
        batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
        return self(batch)["pooled_output"].numpy()

    @property
    def input_embeddings(self) -> tf.Variable:
        """Word embeddings [vocab, width], for heads that share them."""
        return self.encoder.variable("words")

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns variables by depth: embeddings with their LayerNorm, each encoder layer, the pooler.

        Depths of other stages of a pipeline are empty.
        """
        top = self._depth(self.family.weights(self.config)[-1])
        groups: list[list[tf.Variable]] = [[] for _ in range(top + 1)]
        for row in self._table():
            groups[self._depth(row)].append(self.encoder.variable(row.path))
        if self.adaptation is not None:
            groups = [[*group, *self.adaptation.variables(depth)] for depth, group in enumerate(groups)]
        return groups

    def projections(self) -> dict[str, list[Projection]]:
        """Returns the kernels that adapters may change: query, key, value, attention_output, inner and output."""
        return self.encoder.projections()

    def base_variables(self) -> list[tf.Variable]:
        """Returns all variables but those of the pooler, which belongs to the head."""
        pooler = {id(variable) for variable in self.layer_groups()[-1]}
        return [variable for variable in self.weights if id(variable) not in pooler]

    def _depth(self, row: Weight) -> int:
        """Returns how far up a weight is, 0 for the embeddings; the pooler, the last of the table, is at the top."""
        part, number, *_ = row.path.split(".") + [""]
        if part == "pooler":
            return self.config.stored_layers + 1
        return int(number) + 1 if part == "layers" else 0

    def _table(self) -> list[Weight]:
        """Returns the weights that are here: all, or those of a stage."""
        table, stage, layers = self.family.weights(self.config), self.stage, self.config.num_hidden_layers
        if stage is None:
            return table
        depths = {depth + 1 for depth in stage.share(layers)}
        depths |= {0} if stage.is_first else set()
        depths |= {layers + 1} if stage.is_last else set()
        return [row for row in table if self._depth(row) in depths]

    # Weights -----------------------------------------------------------------------------------------------

    def with_layers(self, layers: Sequence[int]) -> Self:
        """Returns an encoder of some of the layers, with copies of their weights and of all that is no layer.

        Args:
            layers: Their numbers from 0, in the order of the new encoder.
        """
        cut = type(self)(self.config.replace(num_hidden_layers=len(layers)), seed=None)
        values, names, taken = self.export_weights(), {row.path: row.name for row in self._table()}, {}
        for row in cut._table():
            part, *rest = row.path.split(".", 2)
            if part == "layers":
                # Of layers that share their weights there is one.
                part = f"layers.{layers[int(rest[0])] % self.config.stored_layers}.{rest[1]}"
                rest = []
            taken[row.name] = values[names[".".join([part, *rest])]]
        cut.assign_weights(taken)
        return cut

    def fresh_weights(self, seed: int = 0, names: Iterable[str] | None = None) -> None:
        """Sets weights to random values that depend only on the seed and the weight's name.

        Args:
            seed: Seed.
            names: Google names of the weights to set; all when None.
        """
        wanted = None if names is None else set(names)
        for row in self._table():
            if wanted is None or row.name in wanted:
                assign(self.encoder, [row], {row.name: initial_value(row, seed, self.config.initializer_range)})

    def weight_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the weights that are here by Google's names and in Google's layout."""
        return {row.name: tf.TensorSpec(row.shape, tf.float32) for row in self._table()}

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights that are here by Google's names and in Google's layout."""
        return extract(self.encoder, self._table())

    def assign_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the weights present in `values` (Google's names and layout)."""
        assign(self.encoder, [row for row in self._table() if row.name in values], values)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        seed: int,
        fresh: bool,
        tensor: Group | None = None,
        stage: Stage | None = None,
        **changes: Any,
    ) -> Self:
        """Builds the encoder that a folder describes.

        Args:
            folder: Model folder.
            seed: Seed of random weights.
            fresh: Whether the weights are random; else they follow.
            tensor: Workers that split every encoder layer.
            stage: Part of the depth that this worker holds.
            **changes: Changed configuration values, such as `hidden_dropout_prob`.

        Raises:
            ModelError: The folder has no configuration of the family.
            ConfigError: A change is not accepted, or the layers cannot be split over so many workers.
        """
        config = cls.family.config_class.from_folder(folder).replace(**changes)
        return cls(config, seed=seed if fresh else None, tensor=tensor, stage=stage)

    def read_weights(self, preset: Preset) -> tuple[dict[str, np.ndarray], LoadReport]:
        """Returns the weights of a folder in any of the three forms, by Google's names, and the report."""
        found = self._files().read_folder(
            preset.folder, config=self.config, parts=BACKBONE, checkpoint=preset.checkpoint
        )
        return found.values, found.report

    def unused(self, report: LoadReport) -> str | None:
        """Returns what to tell of weights of an encoder without a place; those of heads are left aside as usual."""
        names = self.family.of_encoder(report.unexpected)
        if not names:
            return None
        return (
            f"{report.source}: {len(names)} tensors of the encoder are not used, the first is {names[0]}: "
            f"num_hidden_layers={self.config.num_hidden_layers} and the other settings have no place for them"
        )

    def write_files(self, folder: Path, tokenizer: Tokenizer | None) -> None:
        """Writes config.json, model.safetensors and the vocabulary, in Hugging Face's form."""
        self._files().write_files(folder, "hf", self.config, self.export_weights(), tokenizer=tokenizer)

    def facts(self) -> dict[str, Any]:
        """Returns the sizes under the names that presets.json uses."""
        return {"type": self.family.name, **self._files().size_facts(self.config, self.weight_specs())}

    @classmethod
    def _files(cls) -> EncoderFiles:
        return EncoderFiles(cls.family)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"config": self.config.to_dict("ez"), "name": self.name}


def _input_checks(ids: tf.Tensor, segments: tf.Tensor | None, config: EncoderConfig) -> list[tf.Operation]:
    """Returns the checks that cannot be made while tracing; makes the others now.

    Without them a GPU reads zeros for an unknown id, a segment that the model has no row for adds nothing, inputs in
    the wrong order are not noticed, and a long text fails with a broadcasting message.
    """
    limit = config.max_tokens
    if ids.shape.rank != 2:
        raise ModelError("input_ids must have the shape [batch, tokens]", received=str(ids.shape))
    if ids.shape[1] is not None and ids.shape[1] > limit:
        raise ModelError(
            "text longer than the model's positions", received=ids.shape[1], accepted=f"up to {limit} tokens"
        )
    checks = []
    if ids.shape[1] is None:
        name = "max_position_embeddings" + (f" - {config.first_position}" if config.first_position else "")
        message = f"texts must have at most {name} = {limit} tokens"
        checks.append(tf.debugging.assert_less_equal(tf.shape(ids)[1], limit, message))
    vocabulary = f"token ids must lie in [0, vocab_size = {config.vocab_size}); is this the model's own vocabulary?"
    inside = tf.reduce_all((ids >= 0) & (ids < config.vocab_size))
    checks.append(tf.debugging.Assert(inside, [vocabulary]))
    if segments is not None:
        segments, kinds = tf.convert_to_tensor(segments), config.type_vocab_size
        known = tf.reduce_all((segments >= 0) & (segments < kinds))
        checks.append(tf.debugging.Assert(known, [f"segment ids must lie in [0, type_vocab_size = {kinds})"]))
    return [check for check in checks if check is not None]


def _mask_checks(mask: tf.Tensor) -> list[tf.Operation]:
    if mask.shape.rank not in (2, 3):
        shapes = "[batch, tokens], or [batch, tokens, tokens]"
        raise ModelError("input_mask has another shape", received=str(mask.shape), accepted=shapes)
    check = tf.debugging.Assert(tf.reduce_all((mask == 0) | (mask == 1)), ["input_mask must be 0 or 1"])
    return [check] if check is not None else []
