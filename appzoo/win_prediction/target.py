"""The winner of a game: label in, probabilities and contributions of every frame out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.win_prediction import losses
from appzoo.win_prediction.attribution import drop_one_effects, shares
from appzoo.win_prediction.config import WinSettings
from appzoo.win_prediction.metrics import WinEvaluator
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.label_names import one_value
from easytransfer.data.table import RowChunk
from easytransfer.data.values import read_number
from easytransfer.metrics.scores import sigmoid
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs

# Columns of the output that have one list for each group.
PER_GROUP = ("contribution", "weight", "score", "share", "drop_one")


class WinTarget(Target):
    """Whether team A wins: `winner` float32 [batch], 1 or 0.

    Args:
        column: Label column.
        settings: Of the model.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("winner",)

    def __init__(self, column: str, settings: WinSettings) -> None:
        self.column, self.settings = column, settings
        self.groups = [group.name for group in settings.feature_groups]

    def table_columns(self) -> list[str]:
        """Returns the label column."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `winner`; a game without one is a bad row."""
        found = np.zeros(len(chunk.accepted), np.float32)
        for row, cell in enumerate(chunk.columns[self.column]):
            try:
                found[row] = _winner(cell)
            except ValueError as error:
                chunk.reject(row, self.column, str(error))
        return Encoded({"winner": found})

    # Training ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the loss of the scores in the spatial stage, that of the prediction elsewhere.

        Where predictions leave the spatial networks alone and these are trained all the same, both.
        """
        settings = self.settings
        weights = losses.frame_weights(batch["frames_mask"], batch["example_weight"], settings.game_balanced)
        spatial = losses.spatial_loss(batch["winner"], outputs["scores"], weights)
        if step.stage == "spatial":
            return {"spatial_loss": spatial}
        found = {"prediction_loss": losses.prediction_loss(batch["winner"], outputs["logit"], weights)}
        if settings.detach_scores and step.stage in ("together", "joint"):
            found["spatial_loss"] = spatial
        if settings.entropy_weight:
            found["entropy_loss"] = losses.entropy_loss(outputs["weights"], weights, settings.entropy_weight)
        if settings.smoothness_weight:
            found["smoothness_loss"] = losses.smoothness_loss(outputs["weights"], weights, settings.smoothness_weight)
        return found

    def evaluator(self) -> WinEvaluator:
        """Returns metrics over frames and games."""
        return WinEvaluator()

    # Answers -------------------------------------------------------------------------------------------------

    def output_columns(self) -> tuple[str, ...]:
        """Returns the columns of a game, of its frames, and of groups."""
        of_groups = (f"{kind}_{group}" for kind in PER_GROUP for group in self.groups)
        return ("predictions", "win_probability", "minutes", "logit", *of_groups)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns `predictions` (1 or 0, at the last frame) and lists over the frames of each game."""
        found: dict[str, list[Any]] = {name: [] for name in self.output_columns()}
        for row in range(len(encoded)):
            minutes = encoded.columns["minutes"][row]
            game = {name: np.asarray(outputs[name][row])[: len(minutes)] for name in outputs}
            logit, contributions = game["logit"], game["contributions"]
            found["predictions"].append(int(logit[-1] > 0))
            found["win_probability"].append(sigmoid(logit).astype(np.float32))
            found["minutes"].append(minutes)
            found["logit"].append(logit)
            effects = drop_one_effects(logit, contributions)
            of_groups = (contributions, game["weights"], game["scores"], shares(contributions), effects)
            for kind, values in zip(PER_GROUP, of_groups, strict=True):
                for number, group in enumerate(self.groups):
                    found[f"{kind}_{group}"].append(values[:, number].astype(np.float32))
        return found

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns probability and attribution at the last frame, and the curve of the probability, 0 in padding.

        `group_names` stands in every row, as all answers have a row for each game.
        """
        last = outputs["num_frames"] - 1
        real = tf.sequence_mask(outputs["num_frames"], tf.shape(outputs["logit"])[1], dtype=tf.float32)
        at_last = {
            name: tf.gather(outputs[name], last, batch_dims=1)
            for name in ("logit", "contributions", "weights", "scores")
        }
        curve = tf.sigmoid(outputs["logit"]) * real
        return {"win_prob": tf.sigmoid(at_last["logit"]), **at_last, "win_prob_curve": curve, **self._names(last)}

    def frame_answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns what a live stream is answered for one frame, with the `state` for the next one."""
        names = ("logit", "contributions", "weights", "scores", "state")
        named = {name: outputs[name] for name in names}
        return {"win_prob": tf.sigmoid(outputs["logit"]), **named, **self._names(outputs["logit"])}

    def _names(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"group_names": tf.tile(tf.constant([self.groups]), [tf.shape(rows)[0], 1])}


def _winner(cell: Any) -> float:
    value = one_value(cell)
    if isinstance(value, str) and not value.strip():
        raise ValueError("no winner: the cell is empty")
    number = read_number(value)
    if number not in (0, 1):
        raise ValueError(f"no winner: {value!r}, which is not 1 (team A) or 0 (team B)")
    return number
