"""TSSTN: odd networks score each feature group at one moment, a causal stage weighs the groups over time.

Yang et al., "Interpretable Real-Time Win Prediction for Honor of Kings, a Popular Mobile MOBA Esport", IEEE
Transactions on Games 2022, arXiv 2008.06313. The paper's two stages and its weighted sum of scores are kept; layer
sizes, oddness, recurrence over absolute scores and the learnt scale are ours (README, "Departures").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from appzoo.win_prediction.groups import FeatureGroup
from easytransfer import keras

Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Scaling:
    """How differences of the table become numbers of the network: x / deviation, some logarithmically before.

    There is no mean to subtract: seen from both teams it is zero. Both steps are odd, as the networks behind them.

    Attributes:
        deviation: Root mean square of each column over all frames of the training table, [features].
        log: Which of them are taken logarithmically, bool [features].
        log_unit: Unit of these.
        time_unit: Minutes that are 1.
    """

    deviation: np.ndarray
    log: np.ndarray
    log_unit: float
    time_unit: float

    FILE: ClassVar[str] = "scaling.json"

    def transformed(self, values: np.ndarray) -> np.ndarray:
        """Returns values [..., features] before the division: v, or sign(v) * log(1 + |v| / unit), in float64."""
        values = np.asarray(values, np.float64)
        return np.where(self.log, np.sign(values) * np.log1p(np.abs(values) / self.log_unit), values)

    def in_graph(self, frames: tf.Tensor) -> tf.Tensor:
        """Returns scaled frames, float32 [..., features]."""
        logarithmic = tf.sign(frames) * tf.math.log1p(tf.abs(frames) / self.log_unit)
        return tf.where(self.log, logarithmic, frames) / tf.constant(self.deviation, tf.float32)


class OddNetwork(keras.layers.Layer):
    """f(x) with f(-x) = -f(x): dense layers without bias and tanh between them.

    Args:
        units: Units of the hidden layers.
        bound: Whether tanh bounds the score.

    Input [..., width], output [...].
    """

    def __init__(self, units: Sequence[int], bound: bool, name: str) -> None:
        super().__init__(name=name)
        self.hidden = [
            keras.layers.Dense(count, "tanh", use_bias=False, name=f"dense_{i}") for i, count in enumerate(units)
        ]
        self.score = keras.layers.Dense(1, use_bias=False, name="score")
        self.bound = bound

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the score."""
        for layer in self.hidden:
            x = layer(x)
        score = tf.cast(self.score(x)[..., 0], tf.float32)
        return tf.tanh(score) if self.bound else score


class SpatialStage(keras.layers.Layer):
    """The score of every group at every frame: a logit for team A from this group alone (paper: win-score).

    Args:
        groups: Feature groups.
        units: Units of the hidden layers of each network.
        bound: Whether tanh bounds scores.
        hero_ids: Rows of the embedding of heroes, where a group is a line-up.
        hero_units: Its width.
    """

    def __init__(
        self, groups: Sequence[FeatureGroup], units: Sequence[int], bound: bool, hero_ids: int, hero_units: int
    ) -> None:
        super().__init__(name="spatial")
        self.groups = tuple(groups)
        self.networks = [OddNetwork(units, bound, group.name) for group in groups]
        self.embedding = None
        if any(group.heroes for group in groups):
            self.embedding = keras.layers.Embedding(hero_ids, hero_units, name="heroes")

    def call(self, frames: tf.Tensor, heroes: tf.Tensor | None = None) -> tf.Tensor:
        """Returns scores.

        Args:
            frames: Scaled columns of all groups side by side, [batch, frames, features].
            heroes: Heroes of both teams, int32 [batch, 2, heroes], where a group is a line-up.

        Returns:
            float32 [batch, frames, groups].
        """
        scores, start = [], 0
        for group, network in zip(self.groups, self.networks, strict=True):
            if group.heroes:
                score = network(self._difference(heroes))[:, None]
                scores.append(tf.broadcast_to(score, tf.shape(frames)[:2]))
            else:
                scores.append(network(frames[..., start : start + group.width]))
                start += group.width
        return tf.stack(scores, axis=-1)

    def _difference(self, heroes: tf.Tensor) -> tf.Tensor:
        """Returns the summed embeddings of team A minus those of team B, [batch, width]: odd under exchange."""
        teams = tf.reduce_sum(self.embedding(heroes), axis=2)
        return teams[:, 0] - teams[:, 1]


class TemporalStage(keras.layers.Layer):
    """Weights of the groups at every frame from what has been until then; they are not negative and add up to 1.

    It sees absolute scores, so that the weights are the same from the view of either team.

    Args:
        kind: gru, lstm, mlp, phase or uniform.
        groups: Number of groups.
        units: Of gru, lstm and mlp.
        phases: Number of phases, for `phase`.
    """

    def __init__(self, kind: str, groups: int, units: int, phases: int) -> None:
        super().__init__(name="temporal")
        self.kind, self.count = kind, groups
        if kind in ("gru", "lstm"):
            # The cell alone: one step of a live stream computes what a step of the loop does.
            self.cell = (keras.layers.GRUCell if kind == "gru" else keras.layers.LSTMCell)(units, name=kind)
            self.recurrent = keras.layers.RNN(self.cell, return_sequences=True, name="recurrent")
        elif kind == "mlp":
            self.hidden = keras.layers.Dense(units, "tanh", name="hidden")
        elif kind == "phase":
            self.table = self.add_weight("phase_weights", [phases, groups], initializer="zeros")
        if kind in ("gru", "lstm", "mlp"):
            self.head = keras.layers.Dense(groups, name="head")

    @property
    def state_width(self) -> int:
        """Numbers that a live stream carries from frame to frame; 1 that is not used where nothing is remembered."""
        return sum(self._sizes) or 1

    @property
    def _sizes(self) -> list[int]:
        return list(tf.nest.flatten(self.cell.state_size)) if self.kind in ("gru", "lstm") else []

    def call(self, scores: tf.Tensor, time: tf.Tensor, phase: tf.Tensor | None = None) -> tf.Tensor:
        """Returns weights, float32 [batch, frames, groups].

        Args:
            scores: [batch, frames, groups].
            time: Scaled time, [batch, frames].
            phase: Numbers of phases, int32 [batch, frames]; -1 = unknown, which weighs all groups alike.
        """
        if self.kind in ("gru", "lstm"):
            return self._weights(self.recurrent(self._read(scores, time)))
        return self._without_memory(scores, time, phase)

    def step(
        self, scores: tf.Tensor, time: tf.Tensor, phase: tf.Tensor | None, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns weights [batch, groups] of one frame and the state behind it.

        Args:
            scores: [batch, groups].
            time: [batch].
            phase: int32 [batch], as in `call`.
            state: float32 [batch, state_width]; zeros before the first frame.
        """
        if self.kind not in ("gru", "lstm"):
            return self._without_memory(scores, time, phase), state
        given = tf.cast(state, self.compute_dtype)
        output, states = self.cell(self._read(scores, time), tf.split(given, self._sizes, axis=-1))
        return self._weights(output), tf.cast(tf.concat(states, axis=-1), tf.float32)

    def _read(self, scores: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.concat([tf.abs(scores), time[..., None]], axis=-1), self.compute_dtype)

    def _without_memory(self, scores: tf.Tensor, time: tf.Tensor, phase: tf.Tensor | None) -> tf.Tensor:
        if self.kind == "mlp":
            return self._weights(self.hidden(tf.cast(time[..., None], self.compute_dtype)))
        if self.kind == "phase":
            table = tf.cast(self.table, tf.float32)
            return tf.nn.softmax(tf.matmul(tf.one_hot(phase, table.shape[0]), table))
        return tf.ones_like(scores) / self.count

    def _weights(self, hidden: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(self.head(hidden), tf.float32))


class WinNetwork(keras.Model):
    """Both stages and the scale; contributions add up to the logit, without an intercept.

    Args:
        spatial: Scores of groups.
        temporal: Weights of groups.
        scaling: Of the columns.
        learned_scale: Whether the factor before the weighted sum is learnt; it begins with the number of groups, as
            the evidence of groups adds up and does not average out.
        detach: Whether the prediction leaves the spatial networks alone.

    Input: `frames` [batch, frames, features] and `minutes` [batch, frames], with `phase` and `heroes` where they are
    needed. Output: `logit` [batch, frames]; `scores`, `weights`, `contributions` [batch, frames, groups].
    """

    def __init__(
        self, spatial: SpatialStage, temporal: TemporalStage, scaling: Scaling, learned_scale: bool, detach: bool
    ) -> None:
        super().__init__(name="tsstn")
        self.spatial, self.temporal, self.scaling, self.detach = spatial, temporal, scaling, detach
        self.log_scale = None
        if learned_scale:
            start = keras.initializers.Constant(math.log(temporal.count))
            self.log_scale = self.add_weight("log_scale", [], initializer=start, dtype=tf.float32)

    def call(self, batch: Tensors, training: bool = False) -> Tensors:
        """Returns logit and attribution of every frame."""
        scores = self.spatial(self.scaling.in_graph(batch["frames"]), batch.get("heroes"))
        seen = tf.stop_gradient(scores) if self.detach else scores
        weights = self.temporal(seen, batch["minutes"] / self.scaling.time_unit, batch.get("phase"))
        return self._attributed(scores, seen, weights)

    def step(self, batch: Tensors, state: tf.Tensor) -> Tensors:
        """Returns logit and attribution of one frame, and the `state` behind it.

        Args:
            batch: As for `call` without the axis of frames: [batch, features], [batch].
            state: float32 [batch, state_width]; zeros before the first frame.
        """
        heroes, phase = batch.get("heroes"), batch.get("phase")
        scores = self.spatial(self.scaling.in_graph(batch["frames"])[:, None], heroes)[:, 0]
        weights, state = self.temporal.step(scores, batch["minutes"] / self.scaling.time_unit, phase, state)
        return {**self._attributed(scores, scores, weights), "state": state}

    def temporal_variables(self) -> list[tf.Variable]:
        """Returns what the temporal stage trains: its weights and the scale."""
        return [*self.temporal.trainable_variables, *([] if self.log_scale is None else [self.log_scale])]

    def _attributed(self, scores: tf.Tensor, seen: tf.Tensor, weights: tf.Tensor) -> Tensors:
        scale = 1.0 if self.log_scale is None else tf.exp(tf.cast(self.log_scale, tf.float32))
        contributions = scale * weights * seen
        logit = tf.reduce_sum(contributions, axis=-1)
        return {"logit": logit, "scores": scores, "weights": weights, "contributions": contributions}
