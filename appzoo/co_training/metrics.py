"""Metrics of an ensemble and of its members."""

from __future__ import annotations

import numpy as np

from easytransfer.metrics.classification import ClassificationEvaluator


class EnsembleEvaluator(ClassificationEvaluator):
    """Metrics of the ensemble from `outputs["logits"]`, and of the members from `outputs["member_logits"]`, if there.

    In addition to those of `ClassificationEvaluator`: `member_<i>_accuracy`, `member_mean_accuracy`, and
    `disagreement`, the share of rows on which not all members predict the same class.
    """

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        super().update(batch, outputs)
        if "member_logits" in outputs:
            self.add(members=np.asarray(outputs["member_logits"]).argmax(axis=-1))

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; those of no rows are NaN, and those of members are left out then."""
        found = super().result()
        if not len(self) or "members" not in self._parts:
            return found
        members = self.rows("members")
        right = (members == self.rows("true")[:, None]).mean(axis=0)
        found |= {f"member_{i}_accuracy": float(value) for i, value in enumerate(right, 1)}
        found["member_mean_accuracy"] = float(right.mean())
        found["disagreement"] = float((members != members[:, :1]).any(axis=1).mean())
        return found
