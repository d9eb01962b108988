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
from easytransfer.metrics.evaluator import Evaluator
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


def matthew_corr_metrics(logits: Any, labels: Any) -> dict[str, EvalMetric]:
    """Returns the Matthews correlation, for any number of classes (there: two).

    Args:
        logits: [batch, num_labels].
        labels: Class ids, int [batch] or [batch, 1].
    """
    return classification_eval_metrics(logits, labels, int(logits.shape[-1]), names=("matthew_corr",))


def match_eval_metrics(logits: Any, labels: Any, num_labels: int) -> dict[str, EvalMetric]:
    """Returns the metrics of text matching: `mse` of a score; `accuracy`, `auc` and `f1` of two classes;
    `accuracy`, `micro_f1` and `macro_f1` of more.

    Departs from the original: `auc` is that of the probabilities (there: of the predicted classes), `mse` that of the
    score (there: of the constant class 0).

    Args:
        logits: [batch, num_labels]; or the similarity of two towers [batch], alone or first of a list: above 0.5 is a
            match.
        labels: Class ids or scores, [batch] or [batch, 1].
        num_labels: Number of classes; 1 or less for a score.
    """
    import tensorflow as tf

    logits = logits[0] if isinstance(logits, list | tuple) else logits
    if num_labels < 2:
        return regression_eval_metrics(logits, labels)
    if len(logits.shape) == 1:
        # Two logits of which the second wins above 0.5, and whose difference orders rows as the similarity does.
        logits = tf.stack([tf.fill(tf.shape(logits), tf.constant(0.5, logits.dtype)), logits], axis=1)
    names = ("accuracy", "auc", "f1") if num_labels == 2 else ("accuracy", "micro_f1", "macro_f1")
    return classification_eval_metrics(logits, labels, num_labels, names=names)


def sequence_labeling_eval_metrics(logits: Any, labels: Any, num_labels: int) -> dict[str, EvalMetric]:
    """Returns `accuracy`, the share of labelled tokens whose tag is right; positions labelled below 0 do not count.

    Args:
        logits: [batch, time, num_labels].
        labels: Tag ids, int [batch, time], negative where there is no tag.
        num_labels: Number of tags, the last axis of `logits`.

    Raises:
        ValueError: `logits` has another number of tags than `num_labels`.
    """
    _check_last_axis(logits, num_labels)
    return _accuracy("accuracy", _argmax(logits), labels, weights=labels >= 0)


def comprehension_eval_metrics(logits: Any, labels: Any, n_best_size: int = 20) -> dict[str, EvalMetric]:
    """Returns `start_accuracy`, `end_accuracy` and `accuracy` (both right) of the best span of every window.

    The best span has the largest sum of a start and an end logit among the `n_best_size` best of each, the end not
    before the start.

    Args:
        logits: Start and end logits, each [batch, time].
        labels: Start and end positions, each int [batch] or [batch, 1].
        n_best_size: Starts and ends looked at.
    """
    import tensorflow as tf

    found = _best_spans(*logits, n_best_size)
    true = [tf.reshape(tf.cast(label, tf.int32), [-1]) for label in labels]
    right = [tf.cast(found[side] == true[side], tf.float32) for side in (0, 1)]
    return {
        **mean_eval_metric("start_accuracy", right[0]),
        **mean_eval_metric("end_accuracy", right[1]),
        **mean_eval_metric("accuracy", right[0] * right[1]),
    }


def teacher_probes_eval_metrics(logits: Sequence[Any], labels: Any, num_labels: int) -> dict[str, EvalMetric]:
    """Returns `accuracy_layer_<i>` of the probe on every layer.

    Args:
        logits: One [batch, num_labels] per layer, the embeddings first.
        labels: Class ids, int [batch] or [batch, 1].
        num_labels: Number of classes.
    """
    return {
        f"accuracy_layer_{layer}": EvalMetric("classification", "accuracy", num_labels, layer_logits, labels)
        for layer, layer_logits in enumerate(logits)
    }


def masked_language_model_eval_metrics(
    lm_logits: Any, masked_lm_ids: Any, masked_lm_weights: Any, vocab_size: int
) -> dict[str, EvalMetric]:
    """Returns `eval_masked_lm_accuracy` and `eval_masked_lm_loss`, the means over masked positions.

    Args:
        lm_logits: [batch, masked, vocab] or [batch * masked, vocab].
        masked_lm_ids: True token ids, int [batch, masked].
        masked_lm_weights: 0 for positions that only pad, [batch, masked].
        vocab_size: Last axis of `lm_logits`.

    Raises:
        ValueError: `lm_logits` has another last axis than `vocab_size`.
    """
    import tensorflow as tf

    _check_last_axis(lm_logits, vocab_size)
    shape = tf.shape(masked_lm_ids)
    logits = tf.cast(tf.reshape(lm_logits, tf.concat([shape, [vocab_size]], axis=0)), tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=masked_lm_ids, logits=logits)
    return {
        **_accuracy("eval_masked_lm_accuracy", _argmax(logits), masked_lm_ids, masked_lm_weights),
        **mean_eval_metric("eval_masked_lm_loss", losses, masked_lm_weights),
    }


def next_sentence_prediction_eval_metrics(nsp_logits: Any, next_sentence_labels: Any) -> dict[str, EvalMetric]:
    """Returns `next_sentence_accuracy`.

    Args:
        nsp_logits: [batch, 2].
        next_sentence_labels: 0 or 1, int [batch] or [batch, 1].
    """
    return {
        "next_sentence_accuracy": EvalMetric("classification", "accuracy", 2, nsp_logits, next_sentence_labels),
    }


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


class MetricCollector(Evaluator):
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

    def state(self) -> dict[int, Any]:
        """Returns the rows of every metric."""
        return {position: evaluator.state() for position, evaluator in self._evaluators.items()}

    def merge(self, state: Mapping[int, Any]) -> None:
        """Adds rows of another collector."""
        for position, evaluator in self._evaluators.items():
            evaluator.merge(state[position])

    def result(self) -> dict[str, float]:
        """Returns the metrics under the keys of `build_eval_metrics`."""
        results = {position: evaluator.result() for position, evaluator in self._evaluators.items()}
        return {key: results[position][name] for key, (name, position) in self._plan.items()}


def _check_last_axis(logits: Any, size: int) -> None:
    if logits.shape[-1] is not None and logits.shape[-1] != size:
        raise ValueError(f"logits have {logits.shape[-1]} classes, {size} were declared")


def _argmax(logits: Any) -> Any:
    import tensorflow as tf

    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _accuracy(name: str, predictions: Any, labels: Any, weights: Any) -> dict[str, EvalMetric]:
    import tensorflow as tf

    right = tf.cast(predictions == tf.cast(labels, predictions.dtype), tf.float32)
    return mean_eval_metric(name, right, tf.cast(weights, tf.float32))


def _best_spans(start_logits: Any, end_logits: Any, count: int) -> tuple[Any, Any]:
    """Returns start and end of the best span of every row, int32 [batch]."""
    import tensorflow as tf

    count = tf.minimum(count, tf.shape(start_logits)[1])
    (starts, start_places), (ends, end_places) = (tf.math.top_k(side, count) for side in (start_logits, end_logits))
    allowed = start_places[:, :, None] <= end_places[:, None, :]
    sums = tf.where(allowed, starts[:, :, None] + ends[:, None, :], starts.dtype.min)
    best = tf.argmax(tf.reshape(sums, [tf.shape(sums)[0], -1]), axis=1, output_type=tf.int32)
    pick = [(start_places, best // count), (end_places, best % count)]
    found = tuple(tf.gather(places, index, batch_dims=1) for places, index in pick)
    # Where no start lies before an end there is no span.
    exists = tf.reduce_any(allowed, axis=[1, 2])
    return tuple(tf.where(exists, places, -1) for places in found)


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
