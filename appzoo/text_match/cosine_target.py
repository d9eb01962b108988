"""What the cosine of two vectors says: that texts match, or how similar they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from appzoo.text_match.config import TwoTowerSettings
from appzoo.text_match.metrics import TwoTowerEvaluator
from easytransfer.app.targets.labels import Score, SingleLabel, text_array
from easytransfer.config.json_text import parse_json
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError, ModelError
from easytransfer.losses import matching
from easytransfer.losses.classification import squared_error_sum
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import THRESHOLD_FILE
from easytransfer.run.log import say, warn
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

# Of losses, and of decisions before an evaluation has found a better one.
DEFAULT_THRESHOLD = 0.5
# The second of the two labels says that the texts match.
MATCH = 1


class CosineMatch(SingleLabel):
    """Whether two texts match: `logits` [batch] is the cosine, compared with a threshold.

    Other rows of the batch serve as negatives, unless the cosine is trained towards 1 and 0.

    Args:
        labels: Two classes, the match second.
        settings: Loss and threshold.
        folder: Run or export whose threshold is used where the settings have none.

    Attributes:
        threshold: Cosine above which a pair is predicted to match.
    """

    asset_files = (*SingleLabel.asset_files, THRESHOLD_FILE)

    def __init__(self, labels: LabelMap, settings: TwoTowerSettings, folder: Path | None = None) -> None:
        super().__init__(labels)
        self.settings = settings
        self.threshold = settings.threshold
        if self.threshold is None:
            self.threshold = _stored(folder)

    def keep_threshold(self, evaluator: Evaluator, folder: Path) -> None:
        """Takes the threshold of highest accuracy, where the settings have none, and keeps it in the run folder.

        Args:
            evaluator: Has seen the evaluation table; measures with that threshold afterwards.
            folder: Run folder.
        """
        (folder / THRESHOLD_FILE).unlink(missing_ok=True)
        found = evaluator.result().get("best_threshold")
        if self.settings.threshold is None and found is not None and np.isfinite(found):
            self.threshold = found
            evaluator.decide_by(found)
            write_json(folder / THRESHOLD_FILE, {"threshold": found})
            say(f"pairs match above a cosine of {found:.4f}, which is right most often on the evaluation table")

    @property
    def loss_name(self) -> str:
        """The loss that is used: `margin`, `softmax` or `cosine`."""
        return "margin" if self.settings.matching_loss == "auto" else self.settings.matching_loss

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the loss summed over rows; in-batch losses use no more than the rows of `batch`.

        Every real row has exactly one term (a match is compared with its negatives, the others with the threshold),
        so the divisor is the number of real rows.
        """
        labels, weight, rows = batch["label_id"], batch["example_weight"], self.loss_weight(batch)
        if self.loss_name == "cosine":
            return {"loss": Loss(squared_error_sum(labels, outputs["logits"], weight), rows)}
        vectors, matches = (outputs["vector_a"], outputs["vector_b"]), labels == MATCH
        ids_a, ids_b = matching.text_ids(batch["input_ids"], batch["input_ids_b"])
        negatives = matching.in_batch_negatives(ids_a, ids_b, matches, weight)
        given = self.settings.threshold
        shared = {"threshold": DEFAULT_THRESHOLD if given is None else given}
        if self.loss_name == "margin":
            loss = matching.margin_sum(*vectors, matches, negatives, weight, margin=self.settings.margin, **shared)
        else:
            reverse = matching.in_batch_negatives(ids_b, ids_a, matches, weight)
            scale = self.settings.similarity_scale
            loss = matching.softmax_sum(*vectors, matches, negatives, reverse, weight, scale=scale, **shared)
        return {"loss": Loss(loss, rows)}

    def on_train_table(self, train: EncodedTable) -> None:
        """Checks that the training table has what the loss learns from.

        Raises:
            ConfigError: No row is a match.
        """
        if self.loss_name != "cosine" and not (train.columns["label_id"] == MATCH).any():
            raise ConfigError(
                f"no training row has the label {self.names[MATCH]!r}, which says that the texts match",
                fix="name the label that says so in model.match_label",
            )

    def evaluator(self) -> Evaluator:
        """Returns the metrics of pairs and of finding the match among all texts."""
        return TwoTowerEvaluator(self.names, threshold=self.threshold)

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns `predictions`, `probabilities` ((cosine + 1) / 2) and `logits` (the cosine, [batch]) per row."""
        matches = logits > np.float32(self.threshold)
        return {
            "predictions": [self.names[int(match)] for match in matches],
            "probabilities": list((logits + 1) / 2),
            "logits": list(logits),
        }

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `score` (the cosine), `label` and `probabilities`, all [batch]."""
        cosine = outputs["logits"]
        label = tf.gather(tf.constant(self.names), tf.cast(cosine > self.threshold, tf.int32))
        return {"score": cosine, "label": label, "probabilities": (cosine + 1) / 2}

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        columns = self.columns(outputs["logits"])
        probabilities = np.array(columns["probabilities"], np.float32)
        return {"score": outputs["logits"], "label": text_array(columns["predictions"]), "probabilities": probabilities}

    def signatures(self, raw: Signature) -> dict[str, Signature]:
        """Returns the form of `tf.Example` for TensorFlow Serving's Regress call."""
        from easytransfer.savedmodel.example_signatures import regress_signature

        return {"regress": regress_signature(raw)}


def _stored(folder: Path | None) -> float:
    """Returns the threshold of a run or export, the default one where it keeps none.

    Raises:
        ModelError: Its file is damaged.
    """
    path = None if folder is None else folder / THRESHOLD_FILE
    if path is None or not path.is_file():
        return DEFAULT_THRESHOLD
    try:
        return float(parse_json(path.read_text(encoding="utf-8"))["threshold"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}", fix="restore it, or give threshold") from None


class CosineScore(Score):
    """How similar two texts are: a number that the cosine `logits` [batch] is trained towards."""

    loss_name = "cosine"

    def on_train_table(self, train: EncodedTable) -> None:
        """Tells of numbers that cannot be reached."""
        super().on_train_table(train)
        if np.abs(train.columns["label_id"]).max() > 1:
            warn("some numbers in the label column are outside [-1, 1], which a cosine cannot reach")

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns `predictions` and `logits`, both the cosine, per row."""
        return {"predictions": list(logits), "logits": list(logits)}

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `score` [batch], the cosine."""
        return {"score": outputs["logits"]}

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        return {"score": outputs["logits"]}
