"""Evaluator of one number per row."""

from __future__ import annotations

from typing import Any

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.names import choose_metric, higher_is_better
from easytransfer.metrics.row_results import RowResults

# Rows kept in the report for the picture of predicted against true values.
_PAIRS = 2000


class RegressionEvaluator(RowCollector, Evaluator):
    """Metrics of `batch["label_id"]` float [B] or [B, 1] against `outputs["logits"]` [B] or [B, 1].

    `mse`, `mae`, `pearson`, `spearman` (both 0 when predictions or truth are constant) and `loss`, equal to `mse`.

    Args:
        main_metric: Metric that picks the best checkpoint.
    """

    names = ("mse", "mae", "pearson", "spearman", "loss")

    def __init__(self, *, main_metric: str | None = None) -> None:
        super().__init__()
        self.main_metric = choose_metric(main_metric, self.names, "mse")
        self.higher_is_better = higher_is_better(self.main_metric)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        true = np.asarray(batch["label_id"], np.float64).reshape(-1)
        self.add(true=true, predicted=np.asarray(outputs["logits"], np.float64).reshape(-1))

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there were no rows."""
        if not len(self):
            return dict.fromkeys(self.names, float("nan"))
        true, predicted = self.rows("true"), self.rows("predicted")
        error = predicted - true
        mse = scores.exact_mean(error**2)
        return {
            "mse": mse,
            "mae": scores.exact_mean(np.abs(error)),
            "pearson": scores.pearson(true, predicted),
            "spearman": scores.spearman(true, predicted),
            "loss": mse,
        }

    def row_results(self) -> RowResults | None:
        """Returns true and predicted numbers."""
        return RowResults("regression", [], {name: self.rows(name) for name in ("true", "predicted")})

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card: `rows`, and `pairs` with up to 2,000 evenly spaced rows."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), _PAIRS)).astype(int))
        true, predicted = self.rows("true")[chosen], self.rows("predicted")[chosen]
        return {"rows": len(self), "pairs": {"true": true.tolist(), "predicted": predicted.tolist()}}
