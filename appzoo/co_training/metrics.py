"""Metrics of an ensemble and of its members."""

from __future__ import annotations

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.classification import ClassificationEvaluator

# Top-5 accuracy needs more classes than this.
_TOP = 5


class EnsembleEvaluator(ClassificationEvaluator):
    """Metrics of the ensemble from `outputs["logits"]`, and of the members from `outputs["member_logits"]`, if there.

    In addition to those of `ClassificationEvaluator`: `top_5_accuracy` where there are more than five classes;
    `member_<i>_accuracy`, `member_mean_accuracy`, and `disagreement`, the share of rows on which not all members
    predict the same class.
    """

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        super().update(batch, outputs)
        logits, true = np.asarray(outputs["logits"], np.float32), np.asarray(batch["label_id"]).reshape(-1)
        if len(self.labels) > _TOP:
            before = (logits > np.take_along_axis(logits, true[:, None].astype(np.int64), axis=1)).sum(axis=1)
            self.add(top=before < _TOP)
        if "member_logits" in outputs:
            self.add(members=np.asarray(outputs["member_logits"]).argmax(axis=-1))

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; those of no rows are NaN, and those of members are left out then."""
        found = super().result()
        if not len(self):
            return found
        if len(self.labels) > _TOP:
            found["top_5_accuracy"] = scores.exact_mean(self.rows("top"))
        if "members" not in self._parts:
            return found
        members = self.rows("members")
        right = (members == self.rows("true")[:, None]).mean(axis=0)
        found |= {f"member_{i}_accuracy": float(value) for i, value in enumerate(right, 1)}
        found["member_mean_accuracy"] = float(right.mean())
        found["disagreement"] = float((members != members[:, :1]).any(axis=1).mean())
        return found
