"""Spherical knowledge distillation: a train step against torch, the teacher, the multiplier, answers and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from appzoo.discovery import load_application
from appzoo.distillation_skd.alpha import PUBLISHED, AlphaSchedule
from appzoo.distillation_skd.app import DISTILLATION_FILE, DistillationSkd
from appzoo.distillation_skd.config import DistillationSkdConfig
from appzoo.distillation_skd.teacher import open_teacher
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, ModelError
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.layers.draws import RowDraws
from easytransfer.train import checkpoint
from easytransfer.train.engine import Engine
from easytransfer.train.trainer import Trainer
from easytransfer.train.weights import named_arrays

RANDOM = np.random.default_rng(4)
LABELS = ["ant", "bee", "cat", "dog"]
IMAGES = RANDOM.integers(0, 256, (10, 8, 8, 1)).astype(np.uint8)
TRUE = RANDOM.integers(0, 4, 10).astype(np.int32)
OFF = {"crop_padding": 0, "horizontal_flip": False}
FORM = {"image_size": 8, "channels": 1}
# The teacher's own statistics, which are not those of the student's table.
TEACHER_MEAN, TEACHER_STD = 0.2, 0.7


def rows() -> EncodedTable:
    return EncodedTable({"image": IMAGES, "label_id": TRUE})


def save_teacher(folder: Path, network: str = "mlp12x2_digits", labels=LABELS, **form) -> Path:
    """Writes the run folder of a classifier with random weights; labels without comma make it a regression."""
    form = {**FORM, "channel_mean": [TEACHER_MEAN], "channel_std": [TEACHER_STD], **form}
    data, runtime = {"label_enumerate_values": ",".join(labels)}, {"seed": 3}
    app = ImageClassify(ImageClassifyConfig(data=data, model={"network": network, **form}, runtime=runtime))
    app.prepare(None)
    app.build_model()
    random = np.random.default_rng(6)
    app.model.set_weights([w + random.uniform(-0.1, 0.1, w.shape).astype(np.float32) for w in app.model.get_weights()])
    folder.mkdir(parents=True)
    app.save_assets(folder)
    checkpoint.save(folder, 5, named_arrays(app.model.weights), {}, {})
    checkpoint.point(folder, 5, 5)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run")


def make_app(teacher: Path | None, **sections) -> DistillationSkd:
    given = {"data": {}, "model": {}, "augment": OFF, "train": {}, "distillation": {}, **sections}
    given["data"] = {"label_enumerate_values": ",".join(LABELS), **given["data"]}
    given["model"] = {"network": "mlp8x1_digits", **FORM, **given["model"]}
    given["distillation"] = {"teacher": None if teacher is None else str(teacher), **given["distillation"]}
    app = DistillationSkd(DistillationSkdConfig(model_name="distillation_skd", **given))
    app.prepare(None)
    return app


def built(teacher: Path | None, table: EncodedTable | None = None, **sections) -> DistillationSkd:
    app = make_app(teacher, **sections)
    app.fit_labels(rows() if table is None else table)
    app.build_model()
    return app


def batch(table: EncodedTable | None = None) -> dict[str, tf.Tensor]:
    table = rows() if table is None else table
    return {name: tf.constant(value) for name, value in table.batch(range(len(table))).items()}


def teacher_logits(folder: Path, images: np.ndarray = IMAGES) -> np.ndarray:
    """A pass through the layers of the teacher in NumPy, with its own statistics."""
    stored = checkpoint.load(folder / "model.ckpt-5", weights_only=True).weights
    x = ((images / 255 - TEACHER_MEAN) / TEACHER_STD).reshape(len(images), -1)
    values = list(stored.values())
    assert [value.ndim for value in values] == [2, 1] * 3
    for kernel, bias in zip(values[:4:2], values[1:4:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    return x @ values[4] + values[5]


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def test_the_name_finds_the_application():
    assert load_application("distillation_skd") is DistillationSkd


# Training ----------------------------------------------------------------------------------------------------


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
    app.fit_labels(rows())
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
    found = app.losses({**mixed, "alpha": tf.constant(0.6)}, outputs)
    np.testing.assert_allclose(found["kd_loss"], 0.6 * soft, rtol=1e-4)
    np.testing.assert_allclose(found["ce_loss"], 0.4 * hard, rtol=1e-5)
    np.testing.assert_allclose(app.loss_weight(mixed), row_weight.sum(), rtol=1e-5)


# The teacher -------------------------------------------------------------------------------------------------


def test_the_teacher_has_its_own_statistics_and_is_left_alone(tmp_path):
    folder = save_teacher(tmp_path / "run", "resnet8_w8_cifar")
    app = built(folder, model={"network": "resnet8_w4_cifar"})
    network = app.teacher.network
    before = [w.copy() for w in network.get_weights()]
    single = app.teacher(tf.constant(IMAGES[:1])).numpy()
    np.testing.assert_allclose(app.teacher(tf.constant(IMAGES)).numpy()[:1], single, atol=1e-5, err_msg="batch norm")
    outputs = app.forward({**batch(), "image": tf.constant(IMAGES / 255.0, tf.float32)}, training=True)
    np.testing.assert_allclose(outputs["teacher_logits"][:1], single, atol=1e-5)
    assert network.mean == np.float32(TEACHER_MEAN) and app.model.mean != network.mean
    trainer = Trainer(
        app, app.config.train.model_copy(update={"batch_size": 5, "num_epochs": 2}), run_dir=tmp_path / "s"
    )
    trainer.fit(Batches(rows(), 5, shuffle=True))
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    mine = {id(v) for v in app.model.weights}
    assert not mine & {id(v) for v in network.weights} and {id(v) for v in trainer.engine.variables()} <= mine
    stored = checkpoint.load(checkpoint.resolve(tmp_path / "s"))
    assert len(stored.weights) == len(app.model.weights) and len(mine) == len(stored.weights)
    assert all(f"default/{i}/" in " ".join(stored.training) for i in range(2))


def test_teachers_that_do_not_fit_are_refused_in_one_line(teacher, tmp_path):
    def refused(folder: Path | str, expected: str, **sections) -> None:
        with pytest.raises(ModelError, match=expected) as caught:
            make_app(folder, **sections)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nothing", "there is no checkpoint")
    wide = {"model": {"image_size": 16}}
    refused(teacher, r"takes images \[8, 8, 1\], and this run has \[16, 16, 1\]; set model.image_size=8", **wide)
    refused(teacher, r"takes images \[8, 8, 1\], and this run has \[8, 8, 3\]", model={"channels": 3})
    for names in ("ant,bee,cat", "bee,ant,cat,dog"):
        refused(teacher, "other labels, or in another order", data={"label_enumerate_values": names})
    refused(save_teacher(tmp_path / "score", labels=[""]), "gives a number, no classes")
    for file in ("network.json", ChannelStatistics.FILE):
        broken = save_teacher(tmp_path / f"no_{file}")
        (broken / file).unlink()
        refused(broken, file)
    other = save_teacher(tmp_path / "other")
    text = (other / "network.json").read_text()
    (other / "network.json").write_text(text.replace("12", "13", 1))
    refused(other, "the weights of the teacher are not those of its network.json: the checkpoint .*other")
    export = tmp_path / "export"
    (export / "assets.extra").mkdir(parents=True)
    (export / "assets.extra" / "export.json").write_text("{}")
    refused(export, "is an export, which takes no augmented images")


def test_a_saved_model_can_be_the_teacher(tmp_path):
    class Body(tf.Module):
        def __init__(self, classes):
            super().__init__()
            self.kernel = tf.Variable(RANDOM.normal(size=(64, classes)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)])
        def __call__(self, images):
            return tf.reshape(images, [-1, 64]) @ self.kernel

    bodies = {classes: Body(classes) for classes in (4, 3)}
    for classes, body in bodies.items():
        tf.saved_model.save(body, str(tmp_path / str(classes)))
    app = built(tmp_path / "4")
    expected = (IMAGES / 255.0).reshape(10, -1) @ bodies[4].kernel.numpy()
    np.testing.assert_allclose(app.teacher.over(IMAGES, 4), expected, atol=1e-4)
    assert app.multiplier == pytest.approx(expected.std(axis=1).mean(), rel=1e-5)
    with pytest.raises(ModelError, match=r"no logits of 4 classes; got \[2, 3\]"):
        make_app(tmp_path / "3")
    with pytest.raises(ModelError, match="does not take images"):
        open_teacher(tmp_path / "4", LABELS, app.config.model.model_copy(update={"image_size": 9}), 4)


def test_settings_that_make_no_sense_are_refused(teacher):
    with pytest.raises(ConfigError, match="kd_method=skd_ln needs a teacher"):
        make_app(None)
    with pytest.raises(ConfigError, match="means nothing with 2 classes"):
        make_app(teacher, data={"label_enumerate_values": "a,b"})
    with pytest.raises(ConfigError, match="needs a task with one class per row"):
        make_app(teacher, data={"label_enumerate_values": ""})
    with pytest.raises(ValueError, match="cached needs images that stay the same; turn off augment.horizontal_flip"):
        make_app(teacher, augment={"crop_padding": 0}, distillation={"kd_teacher_logits": "cached"})
    assert make_app(None, distillation={"kd_method": "none"}, data={"label_enumerate_values": "a,b"}).teacher is None


def test_cached_logits_train_as_those_on_the_fly(teacher):
    found = []
    for where in ("on_the_fly", "cached"):
        table = rows()
        app = built(teacher, table, distillation={"kd_teacher_logits": where})
        assert ("teacher_logits" in table.columns) == (where == "cached")
        calls = []
        plain = app.teacher.network.call
        app.teacher.network.call = lambda *a, plain=plain, calls=calls, **k: (calls.append(1), plain(*a, **k))[1]
        trainer = Trainer(app, app.config.train.model_copy(update={"batch_size": 4, "num_epochs": 2}))
        trainer.fit(Batches(table, 4, shuffle=True))
        assert bool(calls) == (where == "on_the_fly")
        found.append(app.model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# The multiplier ----------------------------------------------------------------------------------------------


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
    again.prepare(tmp_path)
    assert again.multiplier == app.multiplier and again.teacher is None, "evaluation and export need no teacher"
    (tmp_path / DISTILLATION_FILE).unlink()
    with pytest.raises(ModelError, match=DISTILLATION_FILE):
        again.prepare(tmp_path)


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


# Answers and metrics -----------------------------------------------------------------------------------------


def sphere(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    return (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)


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
        served = app.answer(tf.constant(logits))
        np.testing.assert_allclose(served["probabilities"], probabilities, atol=1e-5)
        np.testing.assert_array_equal(served["logits"], logits)
        np.testing.assert_array_equal(served["class_id"], logits.argmax(axis=1))
        written = app.rows({"logits": logits}, rows())
        np.testing.assert_allclose(written["probabilities"], probabilities, atol=1e-5)
        np.testing.assert_array_equal(written["logits"], logits)
        assert written["predictions"] == [LABELS[i] for i in logits.argmax(axis=1)]
        app.config.distillation.kd_probabilities = "raw"
        np.testing.assert_allclose(app.answer(tf.constant(logits))["probabilities"], softmax(logits), atol=1e-6)
        np.testing.assert_allclose(app.rows({"logits": logits}, rows())["probabilities"], softmax(logits), atol=1e-6)


def test_served_confidence_has_a_ceiling(teacher):
    app = built(teacher, distillation={"kd_multiplier": 2.0})
    found = app.answer(tf.constant([[100.0, 0, 0, 0], [1e-3, 0, 0, 0]]))["probabilities"].numpy()
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
        opened.prepare(tmp_path)
        evaluator = opened.evaluator()
        evaluator.update({"image": IMAGES, "label_id": TRUE}, {"logits": logits})
        found = evaluator.result()
        assert ("cosine" in found) == there and "student_deviation" in found
    assert "metrics that compare with the teacher are left out: there is no checkpoint gone" in capfd.readouterr().err


def test_top5_accuracy_with_more_classes():
    from appzoo.distillation_skd.metrics import DistillationEvaluator

    logits, true = RANDOM.normal(size=(50, 8)).astype(np.float32), RANDOM.integers(0, 8, 50)
    evaluator = DistillationEvaluator([str(i) for i in range(8)], lambda z: z, lambda s, t: (s, t), None)
    evaluator.update({"label_id": true}, {"logits": logits})
    expected = np.mean([label in np.argsort(row)[-5:] for row, label in zip(logits, true, strict=True)])
    assert evaluator.result()["top5_accuracy"] == pytest.approx(expected)
