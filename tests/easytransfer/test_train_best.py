"""Which evaluation is the best: the metric, of equal ones the lower loss, then the later step; and patience."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from easytransfer.metrics.names import choose_metric
from easytransfer.train.best import BestTracker

ACCURACY = SimpleNamespace(main_metric="accuracy", higher_is_better=True)


def tracked(evaluations, metric=None, patience=0):
    """Returns the tracker, and which evaluations were the best so far."""
    tracker = BestTracker(metric, patience)
    better = [
        tracker.add(step, {"accuracy": accuracy} | ({} if loss is None else {"loss": loss}), ACCURACY)
        for step, (accuracy, loss) in enumerate(evaluations, 1)
    ]
    return tracker, better


@pytest.mark.parametrize(
    ("evaluations", "best", "better"),
    [
        ([(0.9, 0.5), (0.9, 0.4), (0.9, 0.6)], 2, [True, True, False]),
        ([(0.9, 0.5), (0.9, 0.5)], 2, [True, True]),
        ([(0.9, None), (0.9, None), (0.8, None)], 2, [True, True, False]),
        ([(0.9, 0.5), (0.8, 0.1)], 1, [True, False]),
        ([(0.9, math.nan), (0.9, 0.9), (0.9, math.nan)], 2, [True, True, False]),
        ([(math.nan, 0.1), (math.nan, 0.05), (0.1, 9.0)], 3, [True, False, True]),
    ],
)
def test_of_equal_metrics_the_lower_loss_then_the_later_step_is_the_best(evaluations, best, better):
    tracker, found = tracked(evaluations)
    assert (tracker.step, found) == (best, better)
    assert tracker.metrics["accuracy"] == tracker.value


def test_a_metric_where_lower_is_better_ties_too():
    tracker, better = tracked([(0.1, 0.5), (0.2, 0.5), (0.3, 0.6)], metric="loss")
    assert (tracker.step, better) == (2, [True, True, False])


def test_equal_metrics_do_not_give_new_patience():
    tracker, _ = tracked([(0.9, 0.5), (0.9, 0.4), (0.9, 0.3)], patience=2)
    assert tracker.step == 3 and tracker.exhausted


def test_the_best_of_a_stored_run_is_compared_with(tmp_path):
    tracker, _ = tracked([(0.9, 0.5)])
    other = BestTracker(None, 0)
    other.restore({**tracker.state(), "metrics": {"accuracy": 0.9, "loss": None}})
    assert other.add(2, {"accuracy": 0.9, "loss": 7.0}, ACCURACY), "a loss that was not finite is stored as null"


def test_the_earlier_name_of_a_metric_is_known_where_it_means_nothing_else():
    assert choose_metric("accuracy", ["exact_match", "window_accuracy"], "f1") == "window_accuracy"
    assert choose_metric("accuracy", ["accuracy", "window_accuracy"], "f1") == "accuracy"
