"""Two towers: each text becomes a vector of its own, and a pair is scored by the cosine of its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.encoder import Encoder
from appzoo.text_match.config import TwoTowerConfig
from appzoo.text_match.match_label import match_last
from appzoo.text_match.metrics import TwoTowerEvaluator
from appzoo.text_match.pairs import require_pair
from appzoo.text_match.two_tower_model import Tower, TwoTowerModel, pair_batch
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.targets.labels import LabelTarget, label_target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.errors import ConfigError
from easytransfer.losses import matching
from easytransfer.losses.classification import squared_error_sum
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.run.log import say, warn
from easytransfer.savedmodel.example_signatures import regress_signature
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

# The second of the two labels says that the texts match.
MATCH = 1


class TwoTowerMatch(App):
    """One encoder reads both texts, each as `[CLS] text [SEP]` of segment 0, in training as in serving.

    With two labels the second one is the match, and other rows of the batch serve as negatives. Without labels the
    cosine is trained towards the number in the label column.
    """

    config: TwoTowerConfig
    encoder: Encoder
    model: TwoTowerModel
    asset_files = (Encoder.CONFIG_FILE,)
    target: LabelTarget
    two_towers = True
    splits = ("tensor",)

    # Preparation -------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns both texts, each apart.

        Raises:
            ConfigError: A text column is missing.
        """
        require_pair(self.config)
        _require_both_ids(self.config.data.input_schema)
        data, self.encoder = self.config.data, Encoder(self.config, assets.folder)
        return [
            self.encoder.tokens(data.first_sequence, raw=("text_a",)),
            self.encoder.tokens(data.second_sequence, raw=("text_b",), suffix="_b"),
        ]

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns two classes, the match second, or a number.

        Raises:
            ConfigError: There are not two labels, or the loss needs labels.
        """
        needs_classes = self.config.model.matching_loss in ("margin", "softmax")
        target = label_target(self.config, assets, numbers=not needs_classes)
        if target.labels and len(target.labels) != 2:
            raise ConfigError(
                "two towers decide between no match and match",
                received=f"{len(target.labels)} labels: {target.labels.describe()}",
                accepted="two labels, the match second, or none for a number",
                fix="use text_match_bert for more classes",
            )
        if target.labels and assets.folder is None:
            self._put_match_second(target)
        if not target.labels and needs_classes:
            raise ConfigError(
                f"matching_loss={self.config.model.matching_loss} needs to know which pairs match",
                fix="give two names in labelEnumerateValues, or use matching_loss=cosine for numbers",
            )
        return target

    def _put_match_second(self, target: LabelTarget) -> None:
        """Orders the labels of a new run and tells which one is the match."""
        listed = self.config.data.label_enumerate_values != "auto"
        labels = match_last(target.names, self.config.model.match_label, listed)
        counts, target.labels = target.labels.counts, LabelMap(labels)
        target.labels.counts = counts
        say(f"label of texts that match: {labels[MATCH]} (of others: {labels[1 - MATCH]})")

    @property
    def loss_name(self) -> str:
        """The loss that is used: `margin`, `softmax` or `cosine`."""
        name = self.config.model.matching_loss
        if name == "auto":
            return "margin" if self.labels else "cosine"
        return name

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings, encoder configuration and label map."""
        self.encoder.save(folder)
        super().save_assets(folder)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the towers; from the ModelZoo, or the shape stored in a run."""
        settings, backbone = self.config.model, self.encoder.backbone(assets.folder, self.workers)
        network = TwoTowerModel(Tower(backbone, settings.projection_dim, settings.dropout_rate))
        network(pair_batch())
        return network

    @property
    def served_model(self) -> Tower:
        """The network that turns one text into its vector, the same for both towers."""
        return self.model.tower

    def text_vector(self, outputs: Mapping[str, Any]) -> tf.Tensor:
        """Returns the vectors [batch, size] of texts from what the encoder returned for them."""
        return self.served_model.vector_of(outputs)

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with projection."""
        *encoder, pooler = self.served_model.backbone.layer_groups()
        return [*encoder, [*pooler, *self.served_model.projection_variables]]

    def on_train_table(self, train: EncodedTable) -> None:
        """Checks that the training table has what the loss learns from."""
        values = train.columns["label_id"]
        if self.labels and self.loss_name != "cosine" and not (values == MATCH).any():
            raise ConfigError(
                f"no training row has the label {self.labels[MATCH]!r}, which says that the texts match",
                fix="name the label that says so in model.match_label",
            )
        if not self.labels and np.abs(values).max() > 1:
            warn("some numbers in the label column are outside [-1, 1], which a cosine cannot reach")

    # Rows --------------------------------------------------------------------------------------------------

    def _count(self, found: Sequence[Mapping[str, np.ndarray]], kept: np.ndarray) -> None:
        """Counts texts in place of rows: each is cut to the whole length."""
        for counts in found:
            super()._count([counts], kept)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns `predictions`, `probabilities` ((cosine + 1) / 2, labels only) and `logits` (the cosine) per row."""
        cosine = outputs["logits"]
        if not self.labels:
            return {"predictions": list(cosine), "logits": list(cosine)}
        matches = cosine > np.float32(self.config.model.threshold)
        return {
            "predictions": [self.labels[int(match)] for match in matches],
            "probabilities": list((cosine + 1) / 2),
            "logits": list(cosine),
        }

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns, inside a graph, `score` (the cosine), and with labels `label` and `probabilities`, all [batch]."""
        logits = outputs["logits"]
        if not self.labels:
            return {"score": logits}
        matches = tf.cast(logits > self.config.model.threshold, tf.int32)
        label = tf.gather(tf.constant(self.labels), matches)
        return {"score": logits, "label": label, "probabilities": (logits + 1) / 2}

    # Training ----------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the loss summed over rows; in-batch losses use no more than the rows of `batch`.

        Every real row has exactly one term (a match is compared with its negatives, the others with the threshold),
        so the divisor is the number of real rows.
        """
        labels, weight, settings = batch["label_id"], batch["example_weight"], self.config.model
        if self.loss_name == "cosine":
            total = squared_error_sum(tf.cast(labels, tf.float32), outputs["logits"], weight)
            return {"loss": Loss(total, self.target.loss_weight(batch))}
        vectors, matches = (outputs["vector_a"], outputs["vector_b"]), labels == MATCH
        ids_a, ids_b = matching.text_ids(batch["input_ids"], batch["input_ids_b"])
        negatives = matching.in_batch_negatives(ids_a, ids_b, matches, weight)
        shared = {"threshold": settings.threshold}
        if self.loss_name == "margin":
            loss = matching.margin_sum(*vectors, matches, negatives, weight, margin=settings.margin, **shared)
        else:
            reverse = matching.in_batch_negatives(ids_b, ids_a, matches, weight)
            scale = settings.similarity_scale
            loss = matching.softmax_sum(*vectors, matches, negatives, reverse, weight, scale=scale, **shared)
        return {"loss": Loss(loss, self.target.loss_weight(batch))}

    def evaluator(self) -> Evaluator:
        """Returns the metrics of the task."""
        if self.target.kind == "regression":
            return RegressionEvaluator()
        return TwoTowerEvaluator(self.labels, threshold=self.config.model.threshold)

    # Serving -----------------------------------------------------------------------------------------------

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns pairs of raw texts, the vectors of raw texts for each side, token ids, and the tf.Example form."""
        found = super().signatures(folder)
        tokenizer, raw = self.encoder.graph(folder), found["serving_default"]

        def serve_vector(text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"vector": self.served_model(tokenizer(text, None), training=False)["vector"]}

        spec, samples = {"text": tf.TensorSpec([None], tf.string)}, {"text": raw.samples["text_a"]}
        sides = {
            f"vectors_{side}": Signature(serve_vector, spec, samples, f"vectors of raw {order} texts", tokenizer)
            for side, order in (("a", "first"), ("b", "second"))
        }
        return {"serving_default": raw, **sides, "predict_ids": found["predict_ids"], "regress": regress_signature(raw)}


def _require_both_ids(input_schema: str | None) -> None:
    """Checks that a table of token ids holds those of both texts.

    Raises:
        ConfigError: It does not.
    """
    schema = parse_schema(input_schema) if input_schema else None
    needed = ("input_ids", "input_ids_b")
    if schema is not None and is_id_table(schema) and not set(needed) <= {column.name for column in schema}:
        raise ConfigError(
            "two towers need the token ids of both texts",
            received=input_schema,
            accepted=f"columns {needed[0]} and {needed[1]}, as preprocess writes them",
        )
