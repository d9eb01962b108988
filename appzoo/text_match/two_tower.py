"""Two towers: each text becomes a vector of its own, and a pair is scored by the cosine of its vectors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appzoo.encoder import Encoder
from appzoo.match_label import match_last
from appzoo.text_match.config import TwoTowerConfig
from appzoo.text_match.cosine_target import MATCH, CosineMatch, CosineScore
from appzoo.text_match.pairs import require_pair
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.targets.labels import label_target
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.log import say
from easytransfer.savedmodel.signature import Signature

if TYPE_CHECKING:
    from appzoo.text_match.two_tower_model import TwoTowerModel


class TwoTowerMatch(App):
    """One encoder reads both texts, each as `[CLS] text [SEP]` of segment 0, in training as in serving.

    With two labels the second one is the match; without labels the cosine is trained towards the number in the label
    column.
    """

    config: TwoTowerConfig
    encoder: Encoder
    model: TwoTowerModel
    target: CosineMatch | CosineScore
    splits = ("tensor",)

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns both texts, each apart.

        Raises:
            ConfigError: A text column is missing.
        """
        require_pair(self.config)
        _require_both_ids(self.config.data.input_schema)
        data, self.encoder = self.config.data, Encoder(self.config, assets.folder)
        return [
            self.encoder.tokens(data.first_sequence, raw=("text_a",), reads_apart=True),
            self.encoder.tokens(data.second_sequence, raw=("text_b",), suffix="_b", reads_apart=True),
        ]

    def build_target(self, assets: Assets) -> CosineMatch | CosineScore:
        """Returns two classes, the match second, or a number.

        Raises:
            ConfigError: There are not two labels, or the loss needs labels.
        """
        needs_classes = self.config.model.matching_loss in ("margin", "softmax")
        match = partial(CosineMatch, settings=self.config.model, folder=assets.folder)
        target = label_target(self.config, assets, match, CosineScore, numbers=not needs_classes)
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

    def _put_match_second(self, target: CosineMatch) -> None:
        """Orders the labels of a new run and tells which one is the match."""
        listed = self.config.data.label_enumerate_values not in (None, "auto")
        labels = match_last(target.names, self.config.model.match_label, listed)
        counts, target.labels = target.labels.counts, LabelMap(labels)
        target.labels.counts = counts
        say(f"label of texts that match: {labels[MATCH]} (of others: {labels[1 - MATCH]})")

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the towers; from the ModelZoo, or the shape stored in a run."""
        from appzoo.text_match.two_tower_model import Tower, TwoTowerModel, pair_batch

        settings, backbone = self.config.model, self.encoder.backbone(assets.folder, self.workers)
        network = TwoTowerModel(Tower(backbone, settings.projection_dim, settings.dropout_rate))
        network(pair_batch())
        return network

    def on_evaluation(self, evaluator: Evaluator, folder: Path) -> None:
        """Keeps the threshold of highest accuracy."""
        if isinstance(self.target, CosineMatch):
            self.target.keep_threshold(evaluator, folder)

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Also returns the vectors of raw texts for each side."""
        found = super().signatures(folder)
        tokenizer, raw = self.encoder.graph(folder), found["serving_default"]

        def serve_vector(text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"vector": self.model.tower(tokenizer(text, None), training=False)["vector"]}

        spec, samples = {"text": tf.TensorSpec([None], tf.string)}, {"text": raw.samples["text_a"]}
        sides = {
            f"vectors_{side}": Signature(serve_vector, spec, samples, f"vectors of raw {order} texts", tokenizer)
            for side, order in (("a", "first"), ("b", "second"))
        }
        return {**found, **sides}


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
