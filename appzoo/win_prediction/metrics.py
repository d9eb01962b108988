"""Metrics over frames and over games, their intervals by bootstrap over games, and accuracy by minute."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.scores import area_under_roc, exact_mean, sigmoid

BINS = 15
RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)
# Metrics that are means of something that each frame has.
_FRAME_MEANS = ("accuracy", "nll", "brier")


def frame_scores(logit: np.ndarray, winner: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what each frame has of `accuracy`, `nll` and `brier`, each float64 [frames].

    A logit of exactly 0 names no winner and counts as wrong. The negative log likelihood is in nats and taken from the
    logit, so that it is finite however sure the prediction.

    Args:
        logit: For team A, [frames].
        winner: 1 where team A has won, else 0, [frames].
    """
    logit, winner = np.asarray(logit, np.float64), np.asarray(winner, np.float64)
    right = np.where(winner == 1, logit > 0, logit < 0).astype(np.float64)
    # log(1 + exp(-z)) of the signed logit, without overflow.
    signed = np.where(winner == 1, logit, -logit)
    nll = np.maximum(-signed, 0) + np.log1p(np.exp(-np.abs(signed)))
    return {"accuracy": right, "nll": nll, "brier": (sigmoid(logit) - winner) ** 2}


def expected_calibration_error(probability: np.ndarray, winner: np.ndarray, bins: int = BINS) -> float:
    """Returns the mean of |mean probability - share of wins| over bins of equal width, by frames; NaN without any."""
    probability = np.asarray(probability, np.float64)
    which = np.minimum((probability * bins).astype(np.int64), bins - 1)
    counts = np.bincount(which, minlength=bins)
    gaps = np.bincount(which, probability - winner, bins)
    return float(np.abs(gaps).sum() / counts.sum()) if counts.sum() else math.nan


def weighted_area_under_roc(winner: np.ndarray, logit: np.ndarray, weight: np.ndarray) -> float:
    """Returns the weighted chance that a frame of a won game has the higher logit, ties half; NaN with one class."""
    return _area_under_roc(np.asarray(winner) == 1, np.unique(logit, return_inverse=True)[1], weight)


def _area_under_roc(positive: np.ndarray, rank: np.ndarray, weight: np.ndarray) -> float:
    won = np.bincount(rank, weight * positive)
    lost = np.bincount(rank, weight * ~positive)
    above = won @ (np.cumsum(lost) - lost / 2)
    pairs = won.sum() * lost.sum()
    return float(above / pairs) if pairs else math.nan


class Games:
    """Predictions for the frames of games.

    Attributes:
        lengths: Frames of each game, [games].
        winner: 1 where team A has won, [games].
        minutes: Of all frames, game after game, [frames].
        logit: [frames].

    Args: as the attributes.
    """

    def __init__(self, lengths: np.ndarray, winner: np.ndarray, minutes: np.ndarray, logit: np.ndarray) -> None:
        self.lengths, self.winner, self.minutes, self.logit = lengths, winner, minutes, logit
        self.game = np.repeat(np.arange(len(lengths)), lengths)
        self.frame_winner = winner[self.game]
        self.scores = frame_scores(logit, self.frame_winner)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Returns values [frames] added up by game, [games]."""
        return np.bincount(self.game, values, len(self.lengths))

    def metrics(self) -> dict[str, float]:
        """Returns frame metrics, the game-balanced accuracy, AUC and ECE; NaN without frames."""
        if not len(self.lengths):
            return dict.fromkeys((*_FRAME_MEANS, "game_accuracy", "auc", "ece"), math.nan)
        found = {name: exact_mean(self.scores[name]) for name in _FRAME_MEANS}
        found["game_accuracy"] = exact_mean(self.sums(self.scores["accuracy"]) / self.lengths)
        found["auc"] = area_under_roc(self.frame_winner == 1, self.logit)
        found["ece"] = expected_calibration_error(sigmoid(self.logit), self.frame_winner)
        return found

    def by_minute(self) -> list[dict[str, float]]:
        """Returns accuracy, Brier score and AUC of each minute, with the games that are still running in it."""
        minute, found = np.floor(self.minutes).astype(np.int64), []
        for value in np.unique(minute):
            at = minute == value
            means = {name: exact_mean(self.scores[name][at]) for name in _FRAME_MEANS}
            area = area_under_roc(self.frame_winner[at] == 1, self.logit[at])
            counts = {"games": len(np.unique(self.game[at])), "frames": int(at.sum())}
            found.append({"minute": int(value), **counts, **means, "auc": None if math.isnan(area) else area})
        return found

    def intervals(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, list[float]]:
        """Returns 95% intervals of metrics by bootstrap over games: frames of one game share one outcome.

        Args:
            resamples: Times that as many games are drawn with replacement.
            seed: Of the draws.
        """
        games = len(self.lengths)
        if not games:
            return {}
        # In an order that does not depend on how the table was batched.
        totals = {name: self.sums(self.scores[name]) for name in _FRAME_MEANS}
        order = np.lexsort([self.winner, totals["brier"], totals["nll"], totals["accuracy"], self.lengths])
        drawn = np.random.default_rng(seed).multinomial(games, np.full(games, 1 / games), resamples)
        counts = np.zeros_like(drawn)
        counts[:, order] = drawn
        frames = counts @ self.lengths
        found = {name: counts @ total / frames for name, total in totals.items()}
        found["game_accuracy"] = counts @ (totals["accuracy"] / self.lengths) / games
        rank, won = np.unique(self.logit, return_inverse=True)[1], self.frame_winner == 1
        found["auc"] = np.array([_area_under_roc(won, rank, weight[self.game]) for weight in counts.astype(np.float64)])
        # A draw of games of one outcome alone has no AUC.
        kept = {name: values[~np.isnan(values)] for name, values in found.items()}
        return {name: np.percentile(values, _INTERVAL).tolist() for name, values in kept.items() if len(values)}


class WinEvaluator(Evaluator):
    """Collects the real frames of games; metrics do not depend on how games are batched."""

    main_metric = "nll"
    higher_is_better = False

    def __init__(self) -> None:
        self._games, self._frames, self._gap = RowCollector(), RowCollector(), 0.0

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds the games of a batch."""
        real = batch["frames_mask"] == 1
        self._games.add(lengths=real.sum(axis=1), winner=batch["winner"])
        logit, contributions = outputs["logit"][real], outputs["contributions"][real]
        self._frames.add(minutes=batch["minutes"][real], logit=logit)
        gap = np.abs(logit.astype(np.float64) - contributions.astype(np.float64).sum(axis=-1))
        self._gap = max(self._gap, float(gap.max(initial=0.0)))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]:
        """Returns games, frames and the largest gap."""
        return self._games.state(), self._frames.state(), self._gap

    def merge(self, state: tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]) -> None:
        """Adds the games of another evaluator."""
        self._games.merge(state[0])
        self._frames.merge(state[1])
        self._gap = max(self._gap, state[2])

    def games(self) -> Games:
        """Returns the games so far."""
        if not len(self._games):
            return Games(*(np.zeros(0, kind) for kind in (np.int64, np.float32, np.float32, np.float32)))
        games, frames = self._games.rows, self._frames.rows
        return Games(games("lengths"), games("winner"), frames("minutes"), frames("logit"))

    def result(self) -> dict[str, float]:
        """Returns the metrics of `Games`, and `completeness_gap`: the largest |logit - sum of contributions|."""
        return {**self.games().metrics(), "completeness_gap": self._gap}

    def report(self) -> dict[str, Any]:
        """Returns `rows`, the games, and of `games` the metrics `by_minute` and `intervals`."""
        games = self.games()
        return {"rows": len(games.lengths), "games": {"by_minute": games.by_minute(), "intervals": games.intervals()}}


def deletion_flips(logit: np.ndarray, contributions: np.ndarray, without: np.ndarray) -> dict[str, float]:
    """Returns how often the predicted winner is another one when the inputs of a group are set to zero.

    `top` is the group that supports the prediction most, `least` the one with the smallest |contribution|, `random` the
    mean over all groups, which is what a group drawn at random comes to.

    Args:
        logit: F, [frames].
        contributions: [frames, groups].
        without: F with the inputs of each group at zero, [frames, groups].
    """
    if not len(logit):
        return dict.fromkeys(("top", "random", "least"), math.nan)
    flipped = (np.sign(without) != np.sign(logit)[:, None]).astype(np.float64)
    support = contributions * np.sign(logit)[:, None]
    frames = np.arange(len(logit))
    top, least = support.argmax(axis=1), np.abs(contributions).argmin(axis=1)
    found = {"top": flipped[frames, top], "random": flipped.mean(axis=1), "least": flipped[frames, least]}
    return {name: float(values.mean()) for name, values in found.items()}
