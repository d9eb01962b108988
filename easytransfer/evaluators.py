"""The metric functions of the original Python API, for `build_eval_metrics` of a `base_model` subclass.

`build_eval_metrics` runs while the evaluation step is traced, so it cannot compute a metric of the whole table. It
returns a dict of `EvalMetric`: which tensors are wanted per row and what to compute from them. The runner returns
`fetches(metrics)` from the traced step, gives the arrays of every batch (padding rows removed) to a
`MetricCollector(metrics)`, and asks it for exact results at the end:

    metrics = app.build_eval_metrics(logits, labels)      # inside the traced step
    return fetches(metrics)                               # dict of tensors, first axis = row
    collector = MetricCollector(metrics)                  # outside; keeps names and kinds, no tensors
    collector.update(batch, outputs)                      # for every batch
    collector.result()                                    # {"py_accuracy": 0.91, ...}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from easytransfer.errors import ConfigError
from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.names import canonical_metric, choose_metric, higher_is_better
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.metrics.scores import exact_mean

Kind = Literal["classification", "multi_label", "regression", "mean"]

# Names the original gives, in its order.
_CLASSIFICATION = ("py_accuracy", "py_micro_f1", "py_macro_f1", "py_weighted_f1")
_MULTI_LABEL = ("py_micro_f1", "py_macro_f1", "py_mean_auc")
_REGRESSION = ("mse",)


@dataclass(frozen=True, eq=False)
class EvalMetric:
    """One metric of the whole table and the tensors it is computed from.

    Attributes:
        kind: What the tensors are; `mean` is the average of `logits` weighted by `labels`.
        name: Metric of that kind, such as `macro_f1`.
        num_labels: Number of classes; 0 for a regression or mean.
        logits: Model outputs, first axis = row.
        labels: Labels of the rows, or their weights for `mean`.
    """

    kind: Kind
    name: str
    num_labels: int
    logits: Any
    labels: Any


def classification_eval_metrics(
    logits: Any, labels: Any, num_labels: int, names: Sequence[str] = _CLASSIFICATION
) -> dict[str, EvalMetric]:
    """Returns accuracy and F1 metrics under the original's names.

    Args:
        logits: [batch, num_labels].
        labels: Class ids, int [batch] or [batch, 1].
        num_labels: Number of classes.
        names: Further choices: `auc`, `mcc` (or `matthew_corr`), `loss`; `f1`, `precision`, `recall` for two classes.

    Raises:
        ConfigError: A name is unknown.
    """
    known = _evaluator(EvalMetric("classification", "", num_labels, None, None)).names
    return _metrics("classification", names, known, num_labels, logits, labels)


def multi_label_eval_metrics(
    logits: Any, labels: Any, num_labels: int, names: Sequence[str] = _MULTI_LABEL
) -> dict[str, EvalMetric]:
    """Returns F1 and AUC metrics of several labels per row under the original's names.

    Departs from the original: `py_macro_f1` is the mean of the F1 of the classes (there: F1 of mean precision and mean
    recall), `py_mean_auc` the mean of the AUC of the classes (there: one AUC over all entries).

    Args:
        logits: [batch, num_labels].
        labels: Ids of the true classes padded with -1, int [batch, most labels], or multi-hot float
            [batch, num_labels].
        num_labels: Number of classes.
        names: Further choices: `subset_accuracy`, `loss`.

    Raises:
        ConfigError: A name is unknown.
    """
    return _metrics("multi_label", names, MultiLabelEvaluator.names, num_labels, logits, labels)


def regression_eval_metrics(logits: Any, labels: Any, names: Sequence[str] = _REGRESSION) -> dict[str, EvalMetric]:
    """Returns the mean square error.

    Args:
        logits: [batch] or [batch, 1].
        labels: float [batch] or [batch, 1].
        names: Further choices: `mae`, `pearson`, `spearman`.

    Raises:
        ConfigError: A name is unknown.
    """
    return _metrics("regression", names, RegressionEvaluator.names, 0, logits, labels)


def mean_eval_metric(name: str, values: Any, weights: Any = None) -> dict[str, EvalMetric]:
    """Returns the mean of a number per row (or per position of a row) over the whole table.

    Args:
        name: Key of the result.
        values: [batch, ...].
        weights: Same shape, default ones; 0 leaves an entry out.
    """
    return {name: EvalMetric("mean", name, 0, values, weights)}


def fetches(metrics: Mapping[str, EvalMetric]) -> dict[str, Any]:
    """Returns the tensors the metrics need, each once, for the traced step to return."""
    tensors = {}
    for key, metric in metrics.items():
        position = _source(metrics, key)
        tensors[f"eval/{position}/logits"] = metric.logits
        if metric.labels is not None:
            tensors[f"eval/{position}/labels"] = metric.labels
    return tensors


class MetricCollector:
    """Computes a dict of `EvalMetric` from the arrays of `fetches`; an `Evaluator` as the trainer knows it.

    Args:
        metrics: What `build_eval_metrics` returned; only names and kinds are kept.
        main_metric: Key that picks the best checkpoint, or another name of its metric; default: the first key.

    Raises:
        ConfigError: `metrics` is empty or `main_metric` is not in it.
    """

    def __init__(self, metrics: Mapping[str, EvalMetric], main_metric: str | None = None) -> None:
        if not metrics:
            raise ConfigError("build_eval_metrics returned no metrics", fix="return at least one")
        self._plan = {key: (metric.name, _source(metrics, key)) for key, metric in metrics.items()}
        self._evaluators = {_source(metrics, key): _evaluator(metric) for key, metric in metrics.items()}
        by_name = {canonical_metric(key): key for key in metrics}
        chosen = main_metric if main_metric in metrics else None
        self.main_metric = chosen or by_name[choose_metric(main_metric, by_name, next(iter(by_name)))]
        self.higher_is_better = higher_is_better(self._plan[self.main_metric][0])

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Adds the fetched arrays of one batch; `batch` is not used."""
        for position, evaluator in self._evaluators.items():
            logits = np.asarray(outputs[f"eval/{position}/logits"])
            labels = outputs.get(f"eval/{position}/labels")
            if isinstance(evaluator, MultiLabelEvaluator):
                labels = _multi_hot(np.asarray(labels), logits.shape[-1])
            evaluator.update({"label_id": labels}, {"logits": logits})

    def result(self) -> dict[str, float]:
        """Returns the metrics under the keys of `build_eval_metrics`."""
        results = {position: evaluator.result() for position, evaluator in self._evaluators.items()}
        return {key: results[position][name] for key, (name, position) in self._plan.items()}


class _MeanEvaluator(RowCollector):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def update(self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> None:
        values = np.asarray(outputs["logits"], np.float64)
        weights = np.ones_like(values) if batch["label_id"] is None else np.asarray(batch["label_id"], np.float64)
        self.add(values=(values * weights).reshape(-1), weights=np.broadcast_to(weights, values.shape).reshape(-1))

    def result(self) -> dict[str, float]:
        weight = exact_mean(self.rows("weights")) if len(self) else 0.0
        return {self._name: exact_mean(self.rows("values")) / weight if weight else float("nan")}


def _metrics(
    kind: Kind, names: Sequence[str], known: Iterable[str], num_labels: int, logits: Any, labels: Any
) -> dict[str, EvalMetric]:
    known = list(known)
    for name in names:
        if canonical_metric(name) not in known:
            raise ConfigError(f"no {kind} metric has this name", received=name, accepted=known)
    return {name: EvalMetric(kind, canonical_metric(name), num_labels, logits, labels) for name in names}


def _source(metrics: Mapping[str, EvalMetric], key: str) -> int:
    """Returns the position of the first metric that is computed from the same tensors."""

    def identity(metric: EvalMetric) -> tuple[Any, ...]:
        own_name = metric.name if metric.kind == "mean" else ""
        return metric.kind, own_name, metric.num_labels, id(metric.logits), id(metric.labels)

    return [identity(metric) for metric in metrics.values()].index(identity(metrics[key]))


def _evaluator(metric: EvalMetric) -> Any:
    if metric.kind == "mean":
        return _MeanEvaluator(metric.name)
    if metric.kind == "regression":
        return RegressionEvaluator()
    labels = [str(number) for number in range(metric.num_labels)]
    return ClassificationEvaluator(labels) if metric.kind == "classification" else MultiLabelEvaluator(labels)


def _multi_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns [rows, classes]; integer labels are ids padded with -1, others are multi-hot already."""
    if not np.issubdtype(labels.dtype, np.integer):
        return labels
    hot = np.zeros((len(labels), classes), np.float32)
    rows, places = np.nonzero(labels >= 0)
    hot[rows, labels[rows, places]] = 1
    return hot
