"""Metrics of vision-language pre-training."""

from __future__ import annotations

import math

import numpy as np

from appzoo.vl_pretraining.hiding import BY_NUMBER
from appzoo.vl_pretraining.tasks import Tasks
from easytransfer.errors import ConfigError
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.scores import area_under_roc

_PARTS = ("sum", "weight", "right")
_SCORES = ("label_scores", "label_original")


class PretrainEvaluator(Evaluator):
    """The mean of every loss over what it is of, and how much is guessed.

    `total_loss` is the sum of the losses by their weights, all 1 where these follow the losses; `<name>_loss` each of
    them; `perplexity` = exp(mlm_loss); `<name>_accuracy` of words, pairs, classes, words of labels and pointers, and
    `label_match_auc`, the chance that a label of the image scores above a replaced one.

    Args:
        tasks: What is learnt.
    """

    main_metric = "total_loss"
    higher_is_better = False

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._sums = {f"{name}_{part}": 0.0 for name in tasks.weights for part in _PARTS}
        self._scores: dict[str, list[np.ndarray]] = {name: [] for name in _SCORES}

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows.

        Raises:
            ConfigError: The outputs are those of a prediction, as an export gives them.
        """
        if BY_NUMBER in outputs and not outputs[BY_NUMBER].all():
            raise ConfigError(
                "an export of a pre-training exchanges no texts and replaces no labels, so that it cannot be evaluated",
                fix="give the run folder as checkpointPath",
            )
        for name in self._sums:
            self._sums[name] += float(outputs[name].sum(dtype=np.float64))
        if "label_match" in self._tasks.weights:
            real = outputs["label_real"] > 0
            for name in _SCORES:
                self._scores[name].append(np.float32(outputs[name][real]))

    def state(self) -> dict[str, dict]:
        """Returns the sums, and the scores of labels."""
        return {"sums": self._sums, "scores": {name: _joined(parts) for name, parts in self._scores.items()}}

    def merge(self, state: dict[str, dict]) -> None:
        """Adds those of another evaluator."""
        for name, value in state["sums"].items():
            self._sums[name] += value
        for name, values in state["scores"].items():
            self._scores[name].append(values)

    def result(self) -> dict[str, float]:
        """Returns the metrics; NaN when there was nothing."""
        losses = {f"{name}_loss": self._mean(name, "sum") for name in self._tasks.weights}
        weights = dict.fromkeys(self._tasks.weights, 1.0) if self._tasks.adaptive else self._tasks.weights
        # What an evaluation table has none of, such as labels, is no part of the sum.
        there = [weight * losses[f"{name}_loss"] for name, weight in weights.items() if self._sums[f"{name}_weight"]]
        found = {"total_loss": math.fsum(there) if there else math.nan, **losses}
        found["perplexity"] = float(np.exp(losses["mlm_loss"]))
        for name in self._tasks.weights:
            if name == "label_match":
                scores, original = (_joined(self._scores[part]) for part in _SCORES)
                found["label_match_auc"] = area_under_roc(original > 0, scores)
            elif name != "features":
                found[f"{name}_accuracy"] = self._mean(name, "right")
        return found

    def _mean(self, name: str, part: str) -> float:
        return self._sums[f"{name}_{part}"] / (self._sums[f"{name}_weight"] or math.nan)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *parts])
