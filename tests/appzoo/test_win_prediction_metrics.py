"""Metrics of win prediction against scikit-learn, loops and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from appzoo.win_prediction.attribution import drop_one_effects, shares
from appzoo.win_prediction.metrics import (
    Games,
    WinEvaluator,
    deletion_flips,
    expected_calibration_error,
    frame_scores,
    weighted_area_under_roc,
)
from easytransfer.metrics.names import higher_is_better

TOLERANCE = 1e-9


def games(count: int = 40, seed: int = 0) -> Games:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 12, count)
    winner = (random.random(count) < 0.5).astype(np.float32)
    minutes = np.concatenate([np.arange(length) / 2 for length in lengths])
    # Rounded, so that there are ties.
    logit = (random.normal(0, 1.5, lengths.sum()) + np.repeat(winner, lengths) - 0.5).round(1)
    logit[0] = 0
    return Games(lengths, winner, minutes, logit)


def test_frame_metrics_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    table = games()
    truth, probability = table.frame_winner, 1 / (1 + np.exp(-table.logit))
    found = table.metrics()
    assert found["nll"] == pytest.approx(metrics.log_loss(truth, probability), abs=TOLERANCE)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth, probability), abs=TOLERANCE)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, probability), abs=TOLERANCE)
    right = [(z > 0) == bool(y) if z else False for z, y in zip(table.logit, truth, strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(right), abs=TOLERANCE)
    by_game = [np.mean(np.array(right)[table.game == game]) for game in range(40)]
    assert found["game_accuracy"] == pytest.approx(np.mean(by_game), abs=TOLERANCE)


def test_a_logit_of_zero_is_wrong_and_extreme_ones_are_finite():
    found = frame_scores(np.array([0.0, 0.0, 1000.0, 1000.0]), np.array([0, 1, 1, 0]))
    assert found["accuracy"].tolist() == [0, 0, 1, 0]
    assert found["nll"].tolist() == pytest.approx([math.log(2), math.log(2), 0, 1000], abs=TOLERANCE)
    assert found["brier"].tolist() == pytest.approx([0.25, 0.25, 0, 1], abs=TOLERANCE)


def test_calibration_error_by_bins():
    table = games(60, seed=1)
    probability, total = 1 / (1 + np.exp(-table.logit)), 0.0
    for low in range(15):
        inside = [i for i, p in enumerate(probability) if low / 15 <= p < (low + 1) / 15 or (low == 14 and p == 1)]
        if inside:
            gap = np.mean(probability[inside]) - np.mean(table.frame_winner[inside], dtype=np.float64)
            total += len(inside) / len(probability) * abs(gap)
    assert expected_calibration_error(probability, table.frame_winner) == pytest.approx(total, abs=TOLERANCE)
    # Two frames in the last bin: mean probability 0.975, half of them won.
    assert expected_calibration_error(np.array([0.95, 1.0]), np.array([1, 0])) == pytest.approx(0.475, abs=TOLERANCE)


def test_accuracy_by_minute_counts_the_games_that_still_run():
    lengths, winner = np.array([4, 2]), np.array([1, 0])
    table = Games(lengths, winner, np.array([0, 0.5, 1, 1.5, 0, 0.9]), np.array([1.0, -1, 2, 3, -1, -2]))
    first, second = table.by_minute()
    assert (first["minute"], first["games"], first["frames"], first["accuracy"]) == (0, 2, 4, 0.75)
    assert first["auc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4, abs=TOLERANCE)
    assert (second["minute"], second["games"], second["frames"], second["accuracy"]) == (1, 1, 2, 1.0)
    assert second["auc"] is None
    assert table.metrics()["game_accuracy"] == pytest.approx((3 / 4 + 1) / 2, abs=TOLERANCE)


def test_weighted_area_counts_pairs():
    table = games(12, seed=3)
    weight = np.random.default_rng(0).integers(0, 4, len(table.logit)).astype(np.float64)
    above = pairs = 0.0
    for z, y, w in zip(table.logit, table.frame_winner, weight, strict=True):
        for other, lost, v in zip(table.logit, table.frame_winner, weight, strict=True):
            if y == 1 and lost == 0:
                pairs += w * v
                above += w * v * (1.0 if z > other else 0.5 if z == other else 0.0)
    assert weighted_area_under_roc(table.frame_winner, table.logit, weight) == pytest.approx(
        above / pairs, abs=TOLERANCE
    )
    assert math.isnan(weighted_area_under_roc(np.ones(2), np.array([1.0, 2.0]), np.ones(2)))


def repeated(table: Games, counts: np.ndarray) -> Games:
    """Games drawn so often, as a table."""
    rows = np.repeat(np.arange(len(counts)), counts)
    frames = np.concatenate([np.flatnonzero(table.game == row) for row in rows])
    return Games(table.lengths[rows], table.winner[rows], table.minutes[frames], table.logit[frames])


def test_intervals_are_percentiles_over_draws_of_games():
    table = games(15, seed=5)
    totals = {name: table.sums(table.scores[name]) for name in ("accuracy", "nll", "brier")}
    order = np.lexsort([table.winner, totals["brier"], totals["nll"], totals["accuracy"], table.lengths])
    drawn = np.random.default_rng(0).multinomial(15, np.full(15, 1 / 15), 60)
    found = []
    for row in drawn:
        counts = np.zeros(15, int)
        counts[order] = row
        found.append(repeated(table, counts).metrics())
    for name, (low, high) in table.intervals(resamples=60).items():
        expected = np.nanpercentile([metrics[name] for metrics in found], [2.5, 97.5])
        assert [low, high] == pytest.approx(expected.tolist(), abs=TOLERANCE), name


def test_intervals_do_not_depend_on_the_order_of_games():
    table = games(20, seed=6)
    turned = np.arange(20)[::-1]
    frames = np.concatenate([np.flatnonzero(table.game == row) for row in turned])
    other = Games(table.lengths[turned], table.winner[turned], table.minutes[frames], table.logit[frames])
    for name, interval in table.intervals(50).items():
        assert other.intervals(50)[name] == pytest.approx(interval, abs=TOLERANCE)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Frames of a game agree, so that intervals by frames would be far too narrow."""
    random, hits = np.random.default_rng(1), 0
    for _ in range(100):
        lengths = random.integers(5, 15, 60)
        winner = (random.random(60) < 0.5).astype(np.float32)
        side = np.where(random.random(60) < 0.7, 1, -1) * np.where(winner == 1, 1, -1)
        logit = np.repeat(side, lengths).astype(np.float64)
        table = Games(lengths, winner, np.zeros(lengths.sum()), logit)
        low, high = table.intervals(200)["accuracy"]
        hits += low <= 0.7 <= high
    assert 86 <= hits <= 100


def batch_of(table: Games, rows) -> tuple[dict, dict]:
    width = int(table.lengths[rows].max()) + 2
    batch = {"winner": table.winner[rows], "frames_mask": np.zeros((len(rows), width), np.int32)}
    batch["minutes"] = np.zeros((len(rows), width), np.float32)
    outputs = {"logit": np.full((len(rows), width), 99.0)}
    for place, row in enumerate(rows):
        frames = table.game == row
        batch["frames_mask"][place, : frames.sum()] = 1
        batch["minutes"][place, : frames.sum()] = table.minutes[frames]
        outputs["logit"][place, : frames.sum()] = table.logit[frames]
    parts = np.random.default_rng(0).random((len(rows), width, 3))
    outputs["contributions"] = outputs["logit"][..., None] * parts / parts.sum(-1, keepdims=True)
    return batch, outputs


def test_the_evaluator_leaves_padding_out_and_merges():
    table = games(20, seed=2)
    one, several = WinEvaluator(), [WinEvaluator(), WinEvaluator()]
    one.update(*batch_of(table, np.arange(20)))
    for number, rows in enumerate(np.array_split(np.arange(20), 4)):
        several[number % 2].update(*batch_of(table, rows))
    several[0].merge(several[1].state())
    assert one.result() == pytest.approx({**table.metrics(), "completeness_gap": 0}, abs=1e-6)
    assert several[0].result() == pytest.approx(one.result(), abs=1e-6)
    report = several[0].report()
    assert report["rows"] == 20 and report["games"]["by_minute"] == one.report()["games"]["by_minute"]
    batch, outputs = batch_of(table, np.arange(3))
    outputs["contributions"][0, 0, 0] += 0.25
    broken = WinEvaluator()
    broken.update(batch, outputs)
    assert broken.result()["completeness_gap"] == pytest.approx(0.25, abs=1e-6)
    assert math.isnan(WinEvaluator().result()["accuracy"])


def test_deletion_flips_by_hand():
    """Frame 1 flips without its top group, frame 2 with each group but the least, frame 3 never."""
    logit = np.array([1.0, -2.0, 3.0])
    contributions = np.array([[2.0, -0.9, -0.1], [-1.5, -0.6, 0.1], [1.0, 1.5, 0.5]])
    without = np.array([[-1.0, 1.9, 1.1], [0.5, 0.1, -2.1], [2.0, 1.5, 2.5]])
    found = deletion_flips(logit, contributions, without)
    assert found == pytest.approx({"top": 2 / 3, "random": (1 / 3 + 2 / 3 + 0) / 3, "least": 0.0}, abs=TOLERANCE)


def test_every_metric_says_whether_more_is_better():
    better = {name for name in WinEvaluator().result() if higher_is_better(name)}
    assert better == {"accuracy", "game_accuracy", "auc"}
    assert WinEvaluator.higher_is_better is higher_is_better(WinEvaluator.main_metric) is False


def test_shares_and_drop_one_effects():
    contributions = np.array([[1.0, -3.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(shares(contributions), [[0.25, 0.75, 0], [0, 0, 0]], atol=TOLERANCE)
    effect = drop_one_effects(np.array([-2.0]), contributions[:1])
    p = [1 / (1 + math.exp(-z)) for z in (-2.0, -3.0, 1.0)]
    np.testing.assert_allclose(effect, [[p[0] - p[1], p[0] - p[2], 0]], atol=TOLERANCE)
