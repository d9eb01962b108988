"""What a distilled student answers, and how it is measured, with and without its teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_distillation import IMAGES, LABELS, RANDOM, TRUE, built, rows, save_teacher, softmax, sphere, teacher_logits

from appzoo.distillation_skd.app import DistillationSkd
from appzoo.distillation_skd.config import DistillationSkdConfig


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run")


def test_probabilities_are_those_that_were_trained(teacher):
    logits = RANDOM.normal(size=(5, 4)).astype(np.float32)
    scaled = {
        "skd_ln": lambda m: m * sphere(logits),
        "skd_std": lambda m: m * sphere(logits),
        "skd_l2": lambda m: m * logits / np.linalg.norm(logits, axis=1, keepdims=True),
        "kd": lambda m: logits,
    }
    for method, expected in scaled.items():
        app = built(teacher, distillation={"kd_method": method})
        probabilities = softmax(expected(app.multiplier))
        served = app.target.answer({"logits": tf.constant(logits)})
        np.testing.assert_allclose(served["probabilities"], probabilities, atol=1e-5)
        np.testing.assert_array_equal(served["logits"], logits)
        np.testing.assert_array_equal(served["class_id"], logits.argmax(axis=1))
        written = app.postprocess({"logits": logits}, rows())
        np.testing.assert_allclose(written["probabilities"], probabilities, atol=1e-5)
        np.testing.assert_array_equal(written["logits"], logits)
        assert written["predictions"] == [LABELS[i] for i in logits.argmax(axis=1)]
        app.config.distillation.kd_probabilities = "raw"
        found = app.target.answer({"logits": tf.constant(logits)})
        np.testing.assert_allclose(found["probabilities"], softmax(logits), atol=1e-6)
        np.testing.assert_allclose(
            app.postprocess({"logits": logits}, rows())["probabilities"], softmax(logits), atol=1e-6
        )


def test_served_confidence_has_a_ceiling(teacher):
    app = built(teacher, distillation={"kd_multiplier": 2.0})
    found = app.target.answer({"logits": tf.constant([[100.0, 0, 0, 0], [1e-3, 0, 0, 0]])})["probabilities"].numpy()
    # The point of the sphere nearest to a class is (sqrt(3), -1/sqrt(3), ...) for four classes.
    gap = 2 * (np.sqrt(3) + 1 / np.sqrt(3))
    np.testing.assert_allclose(found[:, 0], np.exp(gap) / (np.exp(gap) + 3), atol=2e-2 * 0.03)


def test_metrics_beside_the_teacher_equal_numpy(teacher):
    app = built(teacher)
    logits, target = RANDOM.normal(size=(10, 4)).astype(np.float32), teacher_logits(teacher)
    evaluator = app.evaluator()
    for part in (slice(0, 6), slice(6, 10)):
        evaluator.update({"image": IMAGES[part], "label_id": TRUE[part]}, {"logits": logits[part]})
    found = evaluator.result()
    served = softmax(app.multiplier * sphere(logits))
    expected = {
        "accuracy": (logits.argmax(1) == TRUE).mean(),
        "loss": -np.log(served[np.arange(10), TRUE]).mean(),
        "student_deviation": logits.std(axis=1).mean(),
        "teacher_deviation": target.std(axis=1).mean(),
        "deviation_gap": target.std(axis=1).mean() - logits.std(axis=1).mean(),
        "student_confidence": softmax(logits).max(axis=1).mean(),
        "teacher_confidence": softmax(target).max(axis=1).mean(),
        "teacher_accuracy": (target.argmax(1) == TRUE).mean(),
        "cosine": (sphere(logits) * sphere(target)).mean(),
    }
    for t in (1, 4):
        p, q = (softmax(app.multiplier * sphere(z) / t) for z in (target, logits))
        expected[f"kd_t{t}_loss"] = t**2 * (p * np.log(p / q)).sum(axis=1).mean()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    given = app.evaluator()
    given.update({"label_id": TRUE}, {"logits": logits, "teacher_logits": target})
    assert given.result() == pytest.approx(found, abs=1e-5), "without images, as several workers exchange rows"


def test_metrics_without_a_teacher_at_hand(teacher, tmp_path, capfd):
    app = built(teacher)
    app.save_assets(tmp_path)
    logits = RANDOM.normal(size=(10, 4)).astype(np.float32)
    moved = DistillationSkdConfig.model_validate(app.config.model_dump() | {"distillation": {"teacher": "gone"}})
    for config, there in ((app.config, True), (moved, False)):
        opened = DistillationSkd(config)
        opened.load_assets(tmp_path)
        evaluator = opened.evaluator()
        evaluator.update({"image": IMAGES, "label_id": TRUE}, {"logits": logits})
        found = evaluator.result()
        assert ("cosine" in found) == there and "student_deviation" in found
    warning = "metrics that compare with the teacher are left out: no teacher: there is no checkpoint gone"
    assert warning in capfd.readouterr().err
