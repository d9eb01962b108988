"""What a user-defined application defines, and what it is told."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from easytransfer.compat.config import Config
from easytransfer.compat.evaluators import EvalMetric
from easytransfer.config.job import JobConfig


class Hooks:
    """The four functions of an application, and calls during training that do nothing unless they are overridden.

    Attributes:
        config: What the script was given.
        job: The same as the configuration of a job.
    """

    config: Config
    job: JobConfig

    def build_logits(self, features: dict[str, tf.Tensor], mode: str | None = None) -> Any:
        """Returns `(logits, labels)` for a batch of features.

        In prediction anything may be returned that `build_predictions` takes, and labels are None without a label.

        Args:
            features: Columns by name, each [batch] or [batch, length]; a preprocessor unpacks them.
            mode: `train`, `eval` or `predict`, see `ModeKeys`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build_logits(features, mode)")

    def build_loss(self, logits: Any, labels: Any) -> tf.Tensor:
        """Returns the mean loss of the batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define build_loss(logits, labels)")

    def build_eval_metrics(self, logits: Any, labels: Any) -> dict[str, EvalMetric]:
        """Returns metrics by name, made by the functions of `easytransfer.evaluators`."""
        raise NotImplementedError(f"{type(self).__name__} must define build_eval_metrics(logits, labels)")

    def build_predictions(self, predict_output: Any) -> dict[str, tf.Tensor]:
        """Returns output columns for what `build_logits` returned, each with the row first."""
        raise NotImplementedError(f"{type(self).__name__} must define build_predictions(predict_output)")

    # Told during training ------------------------------------------------------------------------------------

    def on_step_end(self, step: int, metrics: dict[str, float]) -> None:
        """Called at every log line, after `log_step_count_steps` steps."""

    def on_eval_end(self, step: int, metrics: dict[str, float]) -> None:
        """Called after every evaluation during training."""

    def on_save(self, step: int, path: str) -> None:
        """Called after every checkpoint."""
