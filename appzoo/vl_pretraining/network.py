"""Network and heads of a vision-language pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from appzoo.vl_pretraining.hiding import BY_NUMBER
from appzoo.vl_pretraining.losses import RowLoss, class_loss, feature_loss, pointer_loss
from appzoo.vl_pretraining.tasks import Tasks
from easytransfer import keras
from modelzoo.vision_language.backbone import VisionLanguageBackbone
from modelzoo.vision_language.heads import VisionLanguageHeads


class PretrainNetwork(keras.Model):
    """Network and heads, reduced to what losses, metrics and pages need: logits of a whole batch are large.

    Args:
        backbone: Reads words, regions and labels.
        head: The heads that the losses need.
        tasks: What is learnt.

    Call arguments:
        batch: What a `PairHider` makes of rows.

    Returns:
        Of every loss by its name: `<name>_sum`, `<name>_weight` and `<name>_right` float32 [batch], see `RowLoss`.
        `guesses` and `hidden_positions` int32 [batch, predictions]; with matching `matching_logits` float32 [batch, 2];
        with labels `label_ids`, `label_guesses` and `label_hidden` [batch, M]; with label matching `label_scores`,
        `label_original` and `label_real` float32 [batch, S].
    """

    # Inputs that outputs of an open length are as long as, for compiled exports; labels have another length than words.
    length_inputs: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("label_guesses", "label_targets", "label_hidden"), "label_ids"),
        **dict.fromkeys(("guesses", "hidden_positions", "hidden_ids", "hidden_weights"), "hidden_positions"),
    }

    def __init__(self, backbone: VisionLanguageBackbone, head: VisionLanguageHeads, tasks: Tasks) -> None:
        super().__init__(name="vl_pretraining")
        self.backbone, self.head, self.tasks = backbone, head, tasks

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, Any]:
        """See the class."""
        encoded = self.backbone(batch, training=training, label_visibility=self.tasks.visibility)
        found = self.head(
            encoded,
            self.backbone.input_embeddings,
            positions=batch["hidden_positions"],
            label_slot=batch.get("label_slot"),
        )
        outputs: dict[str, tf.Tensor] = {}
        for name, loss in row_losses(self.tasks, batch, found).items():
            outputs |= {f"{name}_{part}": value for part, value in loss._asdict().items()}
        outputs["guesses"] = _best(found["mlm_logits"])
        outputs["hidden_positions"], outputs["hidden_ids"] = batch["hidden_positions"], batch["hidden_ids"]
        outputs["hidden_weights"] = batch["hidden_weights"]
        if BY_NUMBER in batch:
            outputs[BY_NUMBER] = batch[BY_NUMBER]
        if "matching_logits" in found:
            outputs["matching_logits"] = found["matching_logits"]
        if self.tasks.has_labels:
            outputs["label_guesses"] = _best(found["label_mlm_logits"])
            outputs |= {name: batch[name] for name in ("label_targets", "label_hidden")}
        if "label_match_logits" in found:
            outputs["label_scores"] = found["label_match_logits"][..., 1] - found["label_match_logits"][..., 0]
            outputs |= {name: batch[name] for name in ("label_original", "label_real")}
        return outputs

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, layers, and pooler with heads."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]


def row_losses(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> dict[str, RowLoss]:
    """Returns the losses of every row.

    Args:
        tasks: What is learnt.
        batch: What a `PairHider` made of the rows.
        found: What the heads returned.
    """
    losses: dict[str, RowLoss] = {}
    for name in tasks.weights:
        losses[name] = _LOSSES[name](tasks, batch, found)
    return losses


def _words(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
    # A word that was hidden in the text of another image has nothing to do with this one.
    selected = batch["hidden_weights"] * tf.cast(batch["match_label"], tf.float32)[:, tf.newaxis]
    return class_loss(found["mlm_logits"], batch["hidden_ids"], selected)


def _matching(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
    label = batch["match_label"][:, tf.newaxis]
    return class_loss(found["matching_logits"][:, tf.newaxis], label, tf.ones_like(label, tf.float32))


def _features(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
    wanted = batch["hidden_features"]
    return feature_loss(tasks.feature_loss, found["feature_predictions"], wanted, batch["hidden_regions"])


def _classes(kind: str) -> Any:
    def loss(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
        selected = batch["hidden_regions"] if tasks.masked_classes else tf.cast(batch["region_mask"], tf.float32)
        number, logits = batch[f"{kind}_id"], found[f"{kind}_logits"]
        # Rows of a prediction may have classes that the network does not know.
        selected *= tf.cast((number >= 0) & (number < logits.shape[-1]), tf.float32)
        confidence = batch[f"{kind}_conf"] if tasks.confidence else None
        return class_loss(logits, number, selected, confidence)

    return loss


def _label_words(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
    return class_loss(found["label_mlm_logits"], batch["label_targets"], batch["label_hidden"])


def _label_match(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
    labels = tf.cast(batch["label_original"], tf.int32)
    return class_loss(found["label_match_logits"], labels, batch["label_real"])


def _pointer(tasks: Tasks, batch: Mapping[str, tf.Tensor], found: Mapping[str, tf.Tensor]) -> RowLoss:
    return pointer_loss(found["pointer_scores"], batch["label_regions"], batch["region_mask"])


_LOSSES = {
    "mlm": _words,
    "matching": _matching,
    "features": _features,
    "objects": _classes("object"),
    "attributes": _classes("attribute"),
    "mlam": _label_words,
    "label_match": _label_match,
    "pointer": _pointer,
}


def _best(logits: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)
