"""Names of metrics: the ones used here, the original's aliases, and which direction is better."""

from __future__ import annotations

from collections.abc import Iterable

from easytransfer.errors import ConfigError, did_you_mean

_ALIASES = {
    "py_accuracy": "accuracy",
    "acc": "accuracy",
    "py_micro_f1": "micro_f1",
    "py_macro_f1": "macro_f1",
    "py_weighted_f1": "weighted_f1",
    "matthew_corr": "mcc",
    "matthews_corr": "mcc",
    "matthews_corrcoef": "mcc",
    "py_mean_auc": "mean_auc",
    "pearson_corr": "pearson",
    "pearsonr": "pearson",
    "spearman_corr": "spearman",
    "spearmanr": "spearman",
    "eval_loss": "loss",
    "recall@1": "recall_at_1",
    "recall@5": "recall_at_5",
    "recall@10": "recall_at_10",
}
# Names of earlier versions that mean another metric elsewhere: taken only where that one is not given.
_RENAMED = {"accuracy": "window_accuracy"}
_LOWER_IS_BETTER = {
    *("loss", "mse", "mae", "rmse", "perplexity", "nll", "robust_risk", "local_lipschitz"),
    # End-point error and share of outliers of disparities, Frechet distance of generated images, edits per word, shares
    # of false and of missed lanes.
    *("epe", "d1", "fid", "wer", "cer", "distance", "fp", "fn"),
    # Of probabilities: mean squared error, and expected calibration error.
    *("brier", "ece"),
}
# What metrics of that kind end in.
_LOWER_ENDS = ("_loss", "_error", "_gap", "_distance", "_epe", "_nll", "_mse", "_mae", "_rmse")


def canonical_metric(name: str) -> str:
    """Returns the name used here for a metric, whatever its case or the original's name for it."""
    name = name.strip().lower()
    return _ALIASES.get(name, name)


def higher_is_better(name: str) -> bool:
    """Returns False for losses, errors and distances, True for every other metric."""
    name = canonical_metric(name)
    return not (name in _LOWER_IS_BETTER or name.endswith(_LOWER_ENDS))


def choose_metric(name: str | None, available: Iterable[str], default: str) -> str:
    """Returns the metric that picks the best checkpoint; called before training, not after it.

    Args:
        name: What `metric_for_best` says, or None.
        available: Metrics the evaluator gives.
        default: The metric for None.

    Raises:
        ConfigError: The evaluator does not give this metric.
    """
    available = list(available)
    if name is None:
        return default
    chosen = canonical_metric(name)
    if chosen not in available and _RENAMED.get(chosen) in available:
        return _RENAMED[chosen]
    if chosen not in available:
        raise ConfigError(
            "metric_for_best is not a metric of this task",
            received=name,
            accepted=available,
            fix=did_you_mean(chosen, available),
        )
    return chosen
