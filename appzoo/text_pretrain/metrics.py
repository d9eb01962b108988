"""Metrics of pre-training: how well hidden words are guessed, and pairs told apart."""

from __future__ import annotations

import math

import numpy as np

from easytransfer.metrics.evaluator import Evaluator

_WORDS = ("nll", "right", "hidden")


class PretrainEvaluator(Evaluator):
    """`perplexity` = exp(mean cross entropy of hidden pieces), `mlm_accuracy`, and with pairs `pair_accuracy`.

    Args:
        task: Stands before the names of loss and accuracy.
        paired: Whether rows are pairs.
    """

    main_metric = "perplexity"
    higher_is_better = False

    def __init__(self, task: str = "mlm", paired: bool = False) -> None:
        self._task, self._paired = task, paired
        self._sums = dict.fromkeys((*_WORDS, "rows", "pairs"), 0.0)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        found = {name: float(outputs[name].sum(dtype=np.float64)) for name in _WORDS}
        found["rows"] = float(len(outputs["nll"]))
        if self._paired:
            found["pairs"] = float((outputs["pair_logits"].argmax(-1) == batch["next_sentence_labels"]).sum())
        self.merge(found)

    def state(self) -> dict[str, float]:
        """Returns the sums."""
        return self._sums

    def merge(self, state: dict[str, float]) -> None:
        """Adds those of another evaluator."""
        for name, value in state.items():
            self._sums[name] += value

    def result(self) -> dict[str, float]:
        """Returns the metrics; NaN when there was nothing."""
        sums = self._sums
        hidden, rows = (sums[name] or math.nan for name in ("hidden", "rows"))
        loss = sums["nll"] / hidden
        named = {f"{self._task}_loss": loss, f"{self._task}_accuracy": sums["right"] / hidden}
        found = {"perplexity": float(np.exp(loss)), **named}
        return {**found, "pair_accuracy": sums["pairs"] / rows} if self._paired else found
