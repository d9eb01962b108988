"""Pre-training heads of networks on texts and regions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.presets import Preset, resolve
from easytransfer.presets.load_report import LoadReport
from easytransfer.run.log import warn
from modelzoo.encoder_files import EncoderFiles
from modelzoo.encoder_network import ACTIVATIONS
from modelzoo.encoder_weights import EncoderFamily, Weight, assign, extract, initial_value
from modelzoo.loading import family_module, family_of
from modelzoo.vision_language.config import VisionLanguageConfig

log = logging.getLogger(__name__)
# Heads of BERT that mean the same here; its other one is of pairs of texts.
_OF_TEXT = ("mlm",)
# Outputs of the heads on regions, and the layer before them that some families have.
_REGIONS = {"features": "feature_predictions", "objects": "object_logits", "attributes": "attribute_logits"}
_TRANSFORM = "region_transform"


def label_vectors(label_output: tf.Tensor, label_slot: tf.Tensor, slots: int) -> tf.Tensor:
    """Returns the mean of the vectors of each label's pieces, zeros for a slot without pieces.

    Args:
        label_output: [batch, pieces, hidden].
        label_slot: Which label a piece belongs to, -1 for none, integer [batch, pieces].
        slots: Labels of an image.

    Returns:
        [batch, slots, hidden].
    """
    of_slot = tf.one_hot(label_slot, slots, dtype=label_output.dtype)
    count = tf.reduce_sum(of_slot, axis=1)[..., None]
    return tf.math.divide_no_nan(tf.einsum("bms,bmh->bsh", of_slot, label_output), count)


class VisionLanguageHeads(keras.layers.Layer):
    """The heads of a pre-training that are asked for; no others have weights.

    A family sets `family`.

    Args:
        config: Configuration of the backbone.
        parts: Names of heads: `mlm`, words behind masks, tied to the word embeddings (BERT, arXiv 1810.04805, section
            3.1); `matching`, whether text and image belong together; `features`, those of regions behind masks
            (FashionBERT, arXiv 2005.09801, section 3.3); `objects` and `attributes`, classes of regions; `label_match`,
            whether a label belongs to the image, and `label_pointer`, to which region (LAMP, arXiv 2012.04446).
        seed: Seed of the fresh weights.

    Call arguments:
        outputs: What the backbone returned.
        embedding_table: `backbone.input_embeddings` [vocab, hidden]; needed for `mlm`.
        positions: Words to predict, integer [batch, predictions]; all when None.
        label_positions: Pieces of labels to predict, integer [batch, predictions]; all when None.
        label_slot: As in the batch [batch, pieces]; needed for `label_match` and `label_pointer`.

    Returns:
        float32, of the heads that are here: `mlm_logits` [batch, predictions, vocab]; `matching_logits` [batch, 2];
        `feature_predictions` [batch, regions, feature_size]; `object_logits` [batch, regions, num_object_labels];
        `attribute_logits` [batch, regions, num_attr_labels]. Where the outputs have labels also `label_mlm_logits`
        [batch, predictions, vocab]; `label_match_logits` [batch, label_slots, 2]; `pointer_scores` [batch, label_slots,
        regions], (Q z)(K h) / sqrt(hidden), padding included.

    Raises:
        ModelError: A part is unknown, or is one of labels and the network has none.
    """

    family: ClassVar[EncoderFamily]

    def __init__(
        self, config: VisionLanguageConfig | dict[str, Any], parts: Sequence[str], seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = self.family.config_class.from_dict(config) if isinstance(config, dict) else config
        there = {row.part for row in self.family.table(self.config)}
        known = [part for part in self.family.heads if part in there and part != _TRANSFORM]
        for part in parts:
            if part not in known:
                raise ModelError("this network has no such head", received=part, accepted=known)
        self.parts, self.load_report = tuple(parts), None
        # Optimizers know by the end of a name, such as `bias`, what is not decayed.
        self._by_path = {
            row.path: self.add_weight(row.path.replace(".", "/"), row.shape, initializer="zeros")
            for row in self._table()
        }
        self.built = True
        for row in self._table():
            self.import_weights({row.name: initial_value(row, seed, self.config.initializer_range)})

    def _table(self) -> list[Weight]:
        shared = {_TRANSFORM} if set(self.parts) & set(_REGIONS) else set()
        return self.family.weights(self.config, {*self.parts, *shared})

    def call(
        self,
        outputs: Mapping[str, tf.Tensor],
        embedding_table: tf.Tensor | None = None,
        positions: tf.Tensor | None = None,
        label_positions: tf.Tensor | None = None,
        label_slot: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """See the class."""
        labels, found = outputs.get("label_output"), {}
        if "mlm" in self.parts:
            found["mlm_logits"] = self._words(outputs["sequence_output"], embedding_table, positions)
            if labels is not None:
                found["label_mlm_logits"] = self._words(labels, embedding_table, label_positions)
        if "matching" in self.parts:
            kernel, bias = (self._float(f"matching.{name}") for name in ("kernel", "bias"))
            pooled = tf.cast(outputs["pooled_output"], tf.float32)
            found["matching_logits"] = tf.matmul(pooled, kernel, transpose_b=True) + bias
        found |= self._regions(outputs["region_output"])
        if labels is not None and {"label_match", "label_pointer"} & set(self.parts):
            vectors = label_vectors(labels, label_slot, self.config.label_slots)
            if "label_match" in self.parts:
                found["label_match_logits"] = self._dense("label_match", vectors)
            if "label_pointer" in self.parts:
                queries = _product(vectors, self._float("label_pointer.query"))
                keys = _product(outputs["region_output"], self._float("label_pointer.key"))
                scale = self.config.hidden_size**-0.5
                found["pointer_scores"] = tf.einsum("bsd,bkd->bsk", queries, keys) * scale
        return found

    def _regions(self, regions: tf.Tensor) -> dict[str, tf.Tensor]:
        if f"{_TRANSFORM}.kernel" in self._by_path:
            regions = self._transformed(regions, _TRANSFORM, "region_norm")
        return {name: self._dense(part, regions) for part, name in _REGIONS.items() if part in self.parts}

    def _transformed(self, x: tf.Tensor, dense: str, norm: str) -> tf.Tensor:
        """Returns LN(act(W x + b)) as BERT has it before a softmax, float32."""
        x = ACTIVATIONS[self.config.head_act](self._dense(dense, x))
        gamma, beta = (self._float(f"{norm}.{name}") for name in ("gamma", "beta"))
        return layer_norm(x, gamma, beta, self.config.layer_norm_eps)

    def _words(self, states: tf.Tensor, table: tf.Tensor | None, positions: tf.Tensor | None) -> tf.Tensor:
        """Returns logits of words, float32; the large product is made in the type of the layer."""
        if table is None:
            raise ModelError("the head mlm needs the word embeddings", fix="pass backbone.input_embeddings")
        if positions is not None:
            states = tf.gather(states, positions, batch_dims=1)
        x = tf.cast(self._transformed(states, "transform", "layer_norm"), self.compute_dtype)
        logits = tf.einsum("bth,vh->btv", x, tf.cast(table, x.dtype))
        return tf.cast(logits, tf.float32) + self._float("output_bias")

    def _dense(self, part: str, x: tf.Tensor) -> tf.Tensor:
        found = _product(x, self._float(f"{part}.kernel"))
        return found + self._float(f"{part}.bias") if f"{part}.bias" in self._by_path else found

    def _float(self, path: str) -> tf.Tensor:
        return tf.cast(self.variable(path), tf.float32)

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights, such as `transform.kernel`."""
        return self._by_path[path]

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by Google's names and in Google's layout."""
        return extract(self, self._table())

    def import_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the weights present in `values` (Google's names and layout)."""
        assign(self, [row for row in self._table() if row.name in values], values)

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        config: VisionLanguageConfig,
        parts: Sequence[str],
        *,
        zoo: str | Path | None = None,
        allow_missing: str | None = None,
        seed: int = 0,
    ) -> Self:
        """Builds the heads for a model's backbone with the weights that its files have of them.

        A head that the files have no weight of starts from random values, and a warning says so; one that they have a
        part of, or in another shape, is an error.

        Args:
            name_or_path: Model, or a BERT, of which the head of masked words is taken.
            config: Configuration of the backbone.
            parts: Names of heads.
            zoo: Root of the ModelZoo.
            allow_missing: Regular expression of weight names that may start from random values.
            seed: Seed of the fresh weights.

        Raises:
            ModelError: The model is not found, or the files do not fit.
        """
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        heads = cls(config, parts, seed)
        values, report = heads._read(preset)
        heads.load_report = report
        log.info("%s", report.summary())
        report.check(allow_missing)
        if fresh := sorted(set(parts) - heads._parts_of(values)):
            warn(f"{report.source} has no weights of these heads, which start from random values: {', '.join(fresh)}")
        heads.import_weights(values)
        return heads

    def _read(self, preset: Preset) -> tuple[dict[str, np.ndarray], LoadReport]:
        """Returns the weights of heads in a folder, and a report that lacks only heads of which there is a part."""
        if (family := family_of(preset)) == self.family.name:
            files, config, parts = EncoderFiles(self.family), self.config, {row.part for row in self._table()}
        else:
            files, config = family_module(family, "formats").FILES, None
            parts = tuple(part for part in self.parts if part in _OF_TEXT)
        found = files.read_folder(preset.folder, config=config, parts=parts, checkpoint=preset.checkpoint)
        report, there = found.report, set(found.parts)
        report.missing = [name for name in report.missing if there & self._parts_of([name])]
        return found.values, report

    def _parts_of(self, names: Iterable[str]) -> set[str]:
        return {row.part for row in self._table() if row.name in set(names)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict("ez"), "parts": list(self.parts)}


def _product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.einsum("bnh,hd->bnd", tf.cast(x, tf.float32), kernel)


def layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Returns float32 x normalized over its last axis, times gamma [width] plus beta [width]."""
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
