"""Training by spherical distillation: a step against torch, the schedule of alpha, the multiplier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_distillation import IMAGES, OFF, TRUE, batch, built, make_app, rows, save_teacher, softmax, teacher_logits

from appzoo.discovery import load_application
from appzoo.distillation_skd.alpha import PUBLISHED, AlphaSchedule
from appzoo.distillation_skd.app import DISTILLATION_FILE, DistillationSkd
from appzoo.distillation_skd.config import DistillationSkdConfig
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.train.engine import Engine
from easytransfer.train.step import EVALUATION


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run")


def test_the_name_finds_the_application():
    assert load_application("distillation_skd") is DistillationSkd


def torch_step(app: DistillationSkd, target: np.ndarray, method: str, multiplier: float) -> list[np.ndarray]:
    """Gradients of a step in torch, float64, clipped to a global norm of 1: a network, its loss, nothing of ours."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    w = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in app.model.get_weights()]
    scaled = IMAGES / 255.0
    x = torch.tensor(((scaled - scaled.mean()) / scaled.std()).reshape(10, -1))
    z, t, y = torch.relu(x @ w[0] + w[1]) @ w[2] + w[3], torch.tensor(target), torch.tensor(TRUE).long()
    if method == "skd_ln":
        z, t = (multiplier * functional.layer_norm(each, [4], eps=1e-7) for each in (z, t))
    elif method == "skd_std":
        z = z / z.std(1, keepdim=True) * t.std(1, keepdim=True)
    elif method == "skd_l2":
        z, t = (multiplier * functional.normalize(each) for each in (z, t))
    alpha = 0.0 if method == "none" else 0.9
    soft = functional.kl_div(functional.log_softmax(z / 3, 1), functional.softmax(t / 3, 1), reduction="batchmean")
    (alpha * 9 * soft + (1 - alpha) * functional.cross_entropy(z, y)).backward()
    torch.nn.utils.clip_grad_norm_(w, 1.0)
    return [each.grad.numpy() for each in w]


@pytest.mark.parametrize(
    ("method", "xla"), [(m, False) for m in ("skd_ln", "skd_std", "skd_l2", "kd", "none")] + [("skd_ln", True)]
)
def test_one_train_step_equals_torch(teacher, method, xla):
    settings = {"kd_method": method, "kd_temperature": 3.0}
    train = {"warmup_ratio": 0.0, "weight_decay_ratio": 0.0, "learning_rate": 0.01}
    app = built(teacher, distillation=settings, train=train)
    target, before = teacher_logits(teacher), app.model.get_weights()
    sizes = {"skd_ln": target.std(axis=1), "skd_l2": np.linalg.norm(target, axis=1)}
    multiplier = sizes[method].mean() if method in sizes else 1.0
    gradients = torch_step(app, target, method, multiplier)
    engine = Engine(app, app.config.train, RuntimeConfig(seed=7, enable_xla=xla), 100)
    assert engine.run_step([rows().batch(range(10))]).numpy()[-2] == 0, "the step did not fail"
    slots = engine.training_variables()
    for i, (gradient, start) in enumerate(zip(gradients, before, strict=True)):
        np.testing.assert_allclose(slots[f"default/{i}/m"].numpy() / 0.1, gradient, atol=1e-5)
        # The first update of Adam: rate * g / (|g| + epsilon'), with the epsilon as the platform has it.
        expected = start - 0.01 * gradient / (np.abs(gradient) + 1e-6 / np.sqrt(1 - 0.999))
        clear = np.abs(gradient) > 1e-4
        np.testing.assert_allclose(app.model.get_weights()[i][clear], expected[clear], atol=1e-5)


def test_the_first_steps_of_a_student_with_tiny_logits_are_clipped(teacher):
    """Gradients grow as one over the deviation of the logits, which is small for a fresh network."""
    norms = []
    for scale in (1.0, 1e-2):
        app = built(teacher, distillation={"kd_multiplier": 3.0})
        weights = app.model.get_weights()
        app.model.set_weights([*weights[:-2], *(scale * w for w in weights[-2:])])
        engine = Engine(app, app.config.train, RuntimeConfig(seed=7), 100)
        norms.append(engine.facts([engine.run_step([rows().batch(range(10))])])["grad_norm"][0])
        moments = [v.numpy() / 0.1 for name, v in engine.training_variables().items() if name.endswith("/m")]
        assert np.sqrt(sum((m**2).sum() for m in moments)) == pytest.approx(min(norms[-1], 1.0), rel=1e-4)
    assert norms[1] > 20 * norms[0] and norms[1] > 10
    assert (
        app.config.train.gradient_clip and app.config.train.clip_norm_value == 1 and app.config.train.warmup_ratio > 0
    )


def test_the_published_schedule_of_alpha_and_its_scaling():
    published = AlphaSchedule.parse(PUBLISHED)
    epochs = [published.at(step, 100) for step in range(100)]
    assert epochs == [0.9] * 60 + [0.5] * 20 + [0.1] * 20
    assert [published.at(step, 5) for step in range(5)] == [0.9, 0.9, 0.9, 0.5, 0.1]
    for total in (5, 7, 100, 1170):
        steps = range(0, total, max(total // 50, 1))
        found = [float(published.in_graph(tf.constant(step, tf.int64), total)) for step in steps]
        np.testing.assert_allclose(found, [published.at(step, total) for step in steps], rtol=1e-6)
    constant = AlphaSchedule.parse("constant:0.7")
    assert {constant.at(step, 10) for step in range(10)} == {0.7} and constant.last == 0.7


@pytest.mark.parametrize("text", ["", "0.9", "10:0.9", "0:0.9,60:1.5", "0:0.9,60:0.5,60:0.1", "0:0.9,100:0.1", "x:1"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="schedule of alpha"):
        DistillationSkdConfig(distillation={"kd_alpha_schedule": text})


def test_a_run_goes_through_the_alphas(teacher, monkeypatch):
    app = built(teacher, distillation={"kd_alpha_schedule": "0:1,50:0"})
    engine = Engine(app, app.config.train, RuntimeConfig(), 4)
    for _ in range(4):
        engine.run_step([rows().batch(range(10))])
    vectors = [engine.run_step([rows().batch(range(10))]) for _ in range(1)]
    facts = engine.facts(vectors)
    assert facts["loss/kd_loss"][0] == 0 and facts["loss/ce_loss"][0] > 0
    first = engine.facts([Engine(app, app.config.train, RuntimeConfig(), 4).run_step([rows().batch(range(10))])])
    assert first["loss/kd_loss"][0] > 0 and first["loss/ce_loss"][0] == 0


@pytest.mark.parametrize("class_weights", [None, "1,2,0.5,1"])
def test_mixup_and_smoothing_belong_to_the_cross_entropy(teacher, class_weights):
    app = make_app(
        teacher,
        augment={**OFF, "mixup_alpha": 0.4},
        train={"label_smoothing": 0.1, "class_weights": class_weights},
        distillation={"kd_multiplier": 2.0, "kd_temperature": 3.0},
    )
    app.on_train_table(rows())
    app.build_model()
    draws = RowDraws(tf.constant([3, 4]), tf.constant(10))
    mixed = app.training_batch({**batch(), "example_weight": tf.constant([1.0] * 8 + [0.0] * 2)}, draws)
    outputs = app.forward(mixed, training=True)
    target = teacher_logits(teacher, mixed["image"].numpy() * 255)
    np.testing.assert_allclose(outputs["teacher_logits"], target, atol=1e-4, err_msg="the teacher sees mixed images")
    logits, share, partner = (t.numpy() for t in (outputs["logits"], mixed["own_share"], mixed["partner_label_id"]))
    s, t = (2 * (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True) for z in (logits, target))
    p, q = softmax(t / 3), softmax(s / 3)
    factor = np.array([1, 2, 0.5, 1]) if class_weights else np.ones(4)
    weight = mixed["example_weight"].numpy()
    kinds = [(TRUE, share * weight), (partner, (1 - share) * weight)]
    row_weight = sum(part * factor[labels] for labels, part in kinds)
    soft = 9 * (row_weight * (p * np.log(p / q)).sum(axis=1)).sum()
    hard = 0.0
    for labels, part in kinds:
        smooth = np.eye(4)[labels] * 0.9 + 0.1 / 4
        hard -= (part * factor[labels] * (smooth * np.log(softmax(s))).sum(axis=1)).sum()
    app.alpha = AlphaSchedule.parse("constant:0.6")
    found = app.losses(mixed, outputs, EVALUATION)
    np.testing.assert_allclose(found["kd_loss"].sum, 0.6 * soft, rtol=1e-4)
    np.testing.assert_allclose(found["ce_loss"].sum, 0.4 * hard, rtol=1e-5)
    for loss in found.values():
        np.testing.assert_allclose(loss.weight, row_weight.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "size"),
    [
        ("skd_ln", lambda z: z.std(axis=1)),
        ("skd_std", lambda z: z.std(axis=1)),
        ("skd_l2", lambda z: np.sqrt((z**2).sum(1))),
    ],
)
def test_the_multiplier_is_measured_on_all_training_images_and_stored(teacher, method, size, tmp_path):
    app = built(teacher, distillation={"kd_method": method}, train={"eval_batch_size": 3})
    expected = size(teacher_logits(teacher)).mean()
    assert app.multiplier == pytest.approx(expected, rel=1e-5)
    app.save_assets(tmp_path)
    stored = json.loads((tmp_path / DISTILLATION_FILE).read_text())
    assert stored["multiplier"] == app.multiplier and stored["measured"] is True
    again = DistillationSkd(app.config)
    again.load_assets(tmp_path)
    assert again.multiplier == app.multiplier and again.teacher is None, "evaluation and export need no teacher"
    (tmp_path / DISTILLATION_FILE).unlink()
    with pytest.raises(ModelError, match=DISTILLATION_FILE):
        again.load_assets(tmp_path)


def test_a_given_multiplier_is_taken(teacher):
    assert built(teacher, distillation={"kd_multiplier": 2.5}).multiplier == 2.5
    assert built(teacher, distillation={"kd_method": "kd", "kd_multiplier": 2.5}).multiplier is None


def test_workers_and_resumed_runs_have_the_multiplier_of_the_first(teacher, tmp_path):
    app, other = built(teacher), built(teacher, EncodedTable({"image": IMAGES[:4], "label_id": TRUE[:4]}))
    assert other.multiplier != app.multiplier
    other.restore_state(json.loads(json.dumps(app.state())))
    assert other.multiplier == app.multiplier
    changed = built(save_teacher(tmp_path / "run", "mlp11x2_digits"))
    with pytest.raises(ConfigError, match="is not the one this run was started with"):
        changed.restore_state(app.state())
