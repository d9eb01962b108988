"""Metrics under attack by hand, and the robustness report on classifiers whose robustness is known."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.adversarial_training.attacks.report import Protocol, RobustnessReport
from appzoo.adversarial_training.robustness import RobustnessEvaluator
from easytransfer.run.card import card_text, found_limitations
from easytransfer.run.pictures import ROBUSTNESS, draw_further

PROTOCOL = Protocol("linf", 0.1, ["pgd20", "apgd20"], [0.5, 2.0], 64)


def evaluated(clean: np.ndarray, changed: np.ndarray, true: np.ndarray, classes: int = 3) -> dict[str, float]:
    evaluator = RobustnessEvaluator([str(i) for i in range(classes)])
    for rows in np.array_split(np.arange(len(true)), 2):
        outputs = {"logits": 4 * np.eye(classes)[clean[rows]], "adversarial_logits": np.eye(classes)[changed[rows]]}
        rest = {"steepness": rows + 1.0, "robust_risk": np.full(len(rows), 0.5)}
        evaluator.update({"label_id": true[rows]}, outputs | rest)
    return evaluator.result()


def test_metrics_of_the_sheet():
    found = evaluated(np.array([0, 1, 2, 2, 1]), np.array([0, 2, 2, 0, 1]), np.array([0, 1, 2, 0, 2]))
    assert (found["accuracy"], found["robust_accuracy"], found["stability"]) == (0.6, 0.6, 0.6)
    assert found["local_lipschitz"] == 3.0 and found["robust_risk"] == 0.5
    assert found["risk_ratio"] == pytest.approx(found["loss"] / 0.5)
    # Cross entropy of logits 4, 0, 0: log(1 + 2 exp(-4)) where right, 4 more where wrong.
    assert found["loss"] == pytest.approx(np.log(1 + 2 * np.exp(-4)) + 0.4 * 4)


def test_identities_between_accuracies_and_stability():
    random = np.random.default_rng(0)
    for _ in range(20):
        clean, changed, true = random.integers(0, 3, (3, 50))
        found = evaluated(clean, changed, true)
        assert found["robust_accuracy"] >= found["accuracy"] + found["stability"] - 1 - 1e-12
        assert found["robust_accuracy"] >= np.mean((clean == true) & (clean == changed)) - 1e-12


def test_without_an_attack_only_natural_metrics():
    evaluator = RobustnessEvaluator(["a", "b", "c"], attacked=False, facts={"adv_lambda": 6.0})
    evaluator.update({"label_id": np.array([0, 1])}, {"logits": np.eye(3)[[0, 2]]})
    found = evaluator.result()
    assert found["accuracy"] == 0.5 and found["adv_lambda"] == 6.0 and "robust_accuracy" not in found
    exported = RobustnessEvaluator(["a", "b", "c"])
    exported.update({"label_id": np.array([0, 1])}, {"logits": np.eye(3)[[0, 2]]})
    assert exported.result()["accuracy"] == 0.5 and "stability" not in exported.result()
    assert np.isnan(RobustnessEvaluator(["a", "b"]).result()["stability"])
    assert evaluator.main_metric == "accuracy" and RobustnessEvaluator(["a", "b"]).main_metric == "robust_accuracy"


ROWS = 200
IMAGES = np.random.default_rng(1).integers(0, 256, (ROWS, 2, 2, 1)).astype(np.uint8)
SHADES = IMAGES.reshape(ROWS, 4).mean(axis=1) / 255
LABELS = np.digitize(SHADES, [0.4507])


def shade_logits(images: tf.Tensor) -> tf.Tensor:
    """Dark and light, parted at a mean shade of 0.4507, and a class never taken: what a row withstands is known."""
    shade = tf.reduce_mean(images, axis=[1, 2, 3])
    return tf.stack([0.4507 - shade, shade - 0.4507, -5 * tf.ones_like(shade)], axis=1)


def known_accuracy(radius: float) -> float:
    """Share of rows whose pixels, each moved by up to `radius` within 0 and 1, cannot reach another class."""
    pixels = IMAGES.reshape(ROWS, 4) / 255
    low, high = (np.clip(pixels + sign * radius, 0, 1).mean(axis=1) for sign in (-1, 1))
    return float(((low >= 0.4507) | (high < 0.4507)).mean())


def measured(logits, protocol: Protocol = PROTOCOL) -> dict:
    return RobustnessReport(logits, IMAGES, LABELS, np.arange(ROWS), protocol).measure()


def test_the_curve_of_a_linear_classifier_is_the_true_one():
    found = measured(shade_logits)
    assert found["clean"] == 1.0
    radii = [point["epsilon"] for point in found["curve"]]
    assert radii == pytest.approx([0, 0.05, 0.1, 0.2, 1.0])
    expected = [known_accuracy(radius) for radius in radii]
    assert 0.1 < expected[2] < 0.8 and expected[-1] == 0
    np.testing.assert_allclose([point["accuracy"] for point in found["curve"]], expected, atol=1e-9)
    assert found["attacks"]["apgd20"] == pytest.approx(expected[2]) and found["robust"] == pytest.approx(expected[2])
    assert [check["passed"] for check in found["checks"]] == [True] * 5


def test_masked_gradients_are_noticed():
    # Rounding takes the gradient away and leaves the mistakes of a moved image where they are.
    found = measured(lambda images: shade_logits(tf.round(images * 255) / 255))
    failed = [check["check"] for check in found["checks"] if not check["passed"]]
    assert "accuracy is near 0 in a ball of all images" in failed
    assert found["attacks"]["pgd20"] > known_accuracy(0.1) + 0.1
    assert any("masked" in sentence for sentence in found_limitations({}, {}, {"robustness": found}))


def test_the_l2_ball_of_all_images_is_larger():
    found = measured(shade_logits, Protocol("l2", 0.1, ["pgd20"], [1.0], 200))
    assert found["curve"][-1]["epsilon"] == 2.0 and found["norm"] == "l2"
    # A step of length r along the gradient moves the mean of four pixels by r / 2.
    inside = [(pixels > 0.06).all() and (pixels < 0.94).all() for pixels in IMAGES.reshape(ROWS, 4) / 255]
    safe = np.abs(SHADES - 0.4507) > 0.05
    at_most = float(np.mean(safe | ~np.array(inside)))
    assert np.mean(safe) - 1e-9 <= found["attacks"]["pgd20"] <= at_most + 1e-9


def test_the_report_is_in_the_card_and_drawn(tmp_path):
    report = {"robustness": measured(shade_logits)}
    (tmp_path / "train_config.json").write_text("{}")
    card = card_text(tmp_path, report)
    assert (
        "## Robustness" in card and "| apgd20 | " in card and "| accuracy falls as the radius grows | passed |" in card
    )
    assert draw_further(tmp_path, report) == [ROBUSTNESS] and (tmp_path / ROBUSTNESS).stat().st_size > 5000
    assert draw_further(tmp_path, {}) == []
