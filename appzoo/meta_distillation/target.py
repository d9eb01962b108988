"""The class and the domain of a row, measured for a student beside its meta-teacher."""

from __future__ import annotations

from typing import Any

import numpy as np

from appzoo.domain_label import DomainEvaluator, DomainLabel

TEACHER_LOGITS = "teacher_logits"


class MetaLabel(DomainLabel):
    """One class and one domain per row, with metrics of student and teacher."""

    def evaluator(self) -> MetaEvaluator:
        """Returns the metrics of classification, over all rows and over domains, beside those of the teacher."""
        return MetaEvaluator(self.names, self.domains.names)


class MetaEvaluator(DomainEvaluator):
    """Metrics over all rows and over domains.

    Where outputs have `teacher_logits` also `teacher_accuracy`, `mean_domain_teacher_accuracy` over the domains that
    have rows, and `agreement`: the share of rows that student and teacher give the same class.
    """

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        super().update(batch, outputs)
        if TEACHER_LOGITS in outputs:
            labels = np.asarray(batch["label_id"]).reshape(-1)
            guesses = np.asarray(outputs[TEACHER_LOGITS]).argmax(axis=-1)
            agrees = guesses == np.asarray(outputs["logits"]).argmax(axis=-1)
            self.add(teacher_right=guesses == labels, agrees=agrees)

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats."""
        found = super().result()
        if len(self) and "agrees" in self._parts:
            means = {"teacher_accuracy": "teacher_right", "agreement": "agrees"}
            found |= {name: float(self.rows(of).mean()) for name, of in means.items()}
            each = [domain["teacher_accuracy"] for domain in self.per_domain()]
            found["mean_domain_teacher_accuracy"] = float(np.mean(each))
        return found

    def per_domain(self) -> list[dict[str, Any]]:
        """Returns `domain`, `rows`, `accuracy` and `teacher_accuracy` of each domain that has rows."""
        found = super().per_domain()
        if found and "agrees" in self._parts:
            of, right = self.rows("domain"), self.rows("teacher_right")
            for domain in found:
                rows = of == self._domains.index(domain["domain"])
                domain["teacher_accuracy"] = float(right[rows].mean())
        return found
