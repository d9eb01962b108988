"""Evaluator of classifiers under attack: natural and robust accuracy, stability, steepness, ratio of risks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.classification import ClassificationEvaluator

# Outputs of a model under attack, all with one entry per row.
ATTACKED = ("adversarial_logits", "steepness", "robust_risk")
UNDER_ATTACK = ("robust_accuracy", "stability", "local_lipschitz", "robust_risk", "risk_ratio")


class RobustnessEvaluator(ClassificationEvaluator):
    """The metrics of `ClassificationEvaluator`, and where outputs say what an attack did:

    `robust_accuracy`, mean of [f(x') = y]; `stability`, mean of [f(x') = f(x)] with the same x'; `local_lipschitz`,
    mean steepness; `robust_risk`, mean regulariser without its weight; `risk_ratio`, mean cross entropy by
    `robust_risk`. Outputs are `adversarial_logits` [B, C], `steepness` [B] and `robust_risk` [B].

    Args:
        labels: Names of the classes in id order.
        attacked: Whether outputs may say what an attack did; `robust_accuracy` is the main metric then. Where they do
            not, as those of an exported model, only the natural metrics are there.
        facts: Further numbers that results report as they are.
    """

    def __init__(
        self, labels: Sequence[str], *, attacked: bool = True, facts: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(labels, with_auc=False)
        self._facts = dict(facts or {})
        self._attacked = attacked
        if attacked:
            self.main_metric = "robust_accuracy"

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        super().update(batch, outputs)
        if self._attacked and ATTACKED[0] in outputs:
            changed = np.asarray(outputs["adversarial_logits"]).argmax(axis=-1)
            rest = {name: np.asarray(outputs[name], np.float64) for name in ATTACKED[1:]}
            self.add(changed=changed, **rest)

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats."""
        found = super().result() | self._facts
        if not self._attacked or (len(self) and "changed" not in self._parts):
            return found
        if not len(self):
            return found | dict.fromkeys(UNDER_ATTACK, float("nan"))
        true, predicted, changed = self.rows("true"), self.rows("predicted"), self.rows("changed")
        risk = scores.exact_mean(self.rows("robust_risk"))
        return found | {
            "robust_accuracy": float((changed == true).mean()),
            "stability": float((changed == predicted).mean()),
            "local_lipschitz": scores.exact_mean(self.rows("steepness")),
            "robust_risk": risk,
            "risk_ratio": float(found["loss"] / risk) if risk > 0 else float("nan"),
        }
