"""What is special about adversarial training: its step, the course of lambda, evaluation under attack, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from training import StopAt

from appzoo.adversarial_training.app import AdversarialTraining
from appzoo.adversarial_training.config import AdversarialTrainingConfig, width_ratio
from appzoo.adversarial_training.controller import Course, LambdaController, controller_of
from appzoo.discovery import load_application
from appzoo.image_app import ImageModel
from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, Interrupted
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.train.engine import Engine
from easytransfer.train.step import Losses, Step
from easytransfer.train.trainer import Trainer

RANDOM = np.random.default_rng(7)
LABELS = ["cat", "dog", "owl"]
SIZE, ROWS = 8, 24
TABLE = EncodedTable(
    {
        "image": RANDOM.integers(0, 256, (ROWS, SIZE, SIZE, 1)).astype(np.uint8),
        "label_id": RANDOM.integers(0, 3, ROWS).astype(np.int32),
        "row_number": np.arange(ROWS, dtype=np.int32),
    }
)
NO_CHANGE = {"crop_padding": 0, "horizontal_flip": False}
STRONG = {"epsilon": 0.1, "attack_steps": 3, "start_deviation": 0.01, "eval_attack": "pgd4"}


def config(network: str = "mlp16x1_digits", train: dict | None = None, **adversarial) -> AdversarialTrainingConfig:
    return AdversarialTrainingConfig(
        model_name="adversarial_training",
        data={"label_enumerate_values": ",".join(LABELS)},
        model={"network": network, "image_size": SIZE, "channels": 1},
        train={"batch_size": 8, **(train or {})},
        augment=NO_CHANGE,
        adversarial={**STRONG, **adversarial},
    )


def built(*arguments, **adversarial) -> AdversarialTraining:
    app = AdversarialTraining(config(*arguments, **adversarial))
    app.load_assets(None)
    app.on_train_table(TABLE)
    app.build_model()
    return app


def test_the_name_finds_the_application():
    assert load_application("adversarial_training") is AdversarialTraining


# One step against PyTorch ------------------------------------------------------------------------------------


class Noted(Step):
    """Stands for the step of an engine: keeps what a train step gives it."""

    training, number = True, tf.constant(0, tf.int64)

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    def variables(self) -> list[tf.Variable]:
        return self._model.trainable_variables

    def objective(self, losses: Losses) -> tf.Tensor:
        (self.weight,) = {float(weight) for _, weight in losses.values()}
        return tf.add_n([total for total, _ in losses.values()])

    def update(self, gradients) -> None:
        self.gradients = [gradient.numpy() for gradient in gradients]


def normalised_network() -> keras.Model:
    """A dense network with batch normalisation, so that the order and the mode of the passes show."""
    inputs = keras.Input([SIZE, SIZE, 1])
    hidden = keras.layers.Dense(6, use_bias=False)(keras.layers.Flatten()(inputs))
    hidden = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(hidden)
    return keras.Model(inputs, {"logits": keras.layers.Dense(3)(tf.nn.softplus(hidden))})


class TorchTwin:
    """The same network and step in PyTorch, written from the formulas."""

    def __init__(self, app: AdversarialTraining, torch) -> None:
        self.torch, self.app = torch, app
        names = ("first", "gamma", "beta", "second", "bias")
        trained = [torch.tensor(v.numpy(), requires_grad=True) for v in app.model.trainable_variables]
        self.weights = dict(zip(names, trained, strict=True))
        self.mean, self.variance = (torch.tensor(v.numpy()) for v in app.model.non_trainable_variables)

    def logits(self, images, training: bool):
        w = self.weights
        hidden = ((images - self.app.model.mean[0]) / self.app.model.std[0]).reshape(len(images), -1) @ w["first"]
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = hidden.mean(0), hidden.var(0, unbiased=False)
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.variance = 0.9 * self.variance + 0.1 * variance.detach()
        hidden = w["gamma"] * (hidden - mean) / (variance + 1e-5).sqrt() + w["beta"]
        return self.torch.nn.functional.softplus(hidden) @ w["second"] + w["bias"]

    def robust(self, method: str, natural, changed, labels):
        f = self.torch.nn.functional
        if method == "trades":
            return f.kl_div(f.log_softmax(changed, 1), f.softmax(natural, 1), reduction="none").sum(1)
        own = f.cross_entropy(natural, labels, reduction="none")
        return self.torch.maximum(f.cross_entropy(changed, labels, reduction="none"), own) - own

    def step(self, method: str, images, labels, noise, weight, strength: float):
        torch, chosen = self.torch, self.app.config.adversarial
        images, labels, noise, weight = (torch.tensor(each) for each in (images, labels, noise, weight))
        point, natural = images + noise, self.logits(images, False).detach()
        for _ in range(chosen.attack_steps):
            point = point.detach().requires_grad_(True)
            found = self.logits(point, False)
            if method == "trades":
                loss = self.robust("trades", natural, found, labels).sum()
            else:
                loss = torch.nn.functional.cross_entropy(found, labels, reduction="sum")
            moved = point + chosen.step_size * torch.autograd.grad(loss, point)[0].sign()
            point = torch.minimum(torch.maximum(moved, images - chosen.epsilon), images + chosen.epsilon).clamp(0, 1)
        natural, changed = self.logits(images, True), self.logits(point.detach(), True)
        risk = (weight * torch.nn.functional.cross_entropy(natural, labels, reduction="none")).sum()
        robust = strength * (weight * self.robust(method, natural, changed, labels)).sum()
        gradients = torch.autograd.grad(risk + robust, list(self.weights.values()))
        return float(risk), float(robust), [gradient.numpy() for gradient in gradients]


@pytest.mark.parametrize("method", ["trades", "pgd"])
def test_one_step_equals_pytorch(method):
    torch = pytest.importorskip("torch")
    app = built(adv_method=method, adv_lambda=3.0)
    app.model = ImageModel(normalised_network(), ChannelStatistics((0.4,), (0.3,)))
    app.model({"image": TABLE.columns["image"]})
    random = np.random.default_rng(3)
    for variable in app.model.weights:
        low = 0.5 if "variance" in variable.name or "gamma" in variable.name else -0.5
        variable.assign(random.uniform(low, low + 1, variable.shape))
    images = (TABLE.columns["image"][:8] / 255).astype(np.float32)
    labels = TABLE.columns["label_id"][:8].astype(np.int64)
    noise = random.normal(0, 0.01, images.shape).astype(np.float32)
    weight = np.array([1] * 7 + [0], np.float32)
    twin, step = TorchTwin(app, torch), Noted(app.model)
    batch = {"image": images, "label_id": labels, "start_noise": noise, "example_weight": weight}
    found = app.train_step(step, {name: tf.constant(value) for name, value in batch.items()})
    risk, robust, gradients = twin.step(method, images, labels, noise, weight, 3.0)
    assert robust > 0.1, "the attack does something"
    np.testing.assert_allclose(float(found["natural_loss"].sum), risk, rtol=1e-5)
    np.testing.assert_allclose(float(found["weighted_robust_loss"].sum), robust, rtol=1e-5)
    assert step.weight == 7
    for ours, theirs in zip(step.gradients, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    # Moving statistics: two updates, natural before changed, and none by the attack.
    for ours, theirs in zip(app.model.non_trainable_variables, (twin.mean, twin.variance), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert app.state()["natural_risk"] == pytest.approx(risk / 7, rel=1e-5)
    assert app.state()["robust_risk"] == pytest.approx(robust / 3 / 7, rel=1e-5)


# Lambda ------------------------------------------------------------------------------------------------------


def moved(controller: LambdaController, risks, begin: int = 0) -> list[float]:
    found = []
    for number, (natural, robust) in enumerate(risks, begin):
        controller.update(tf.constant([4 * natural, 4 * robust, 4.0]), tf.constant(number, tf.int64))
        found.append(float(controller.value()))
    return found


def test_lambda_moves_as_worked_by_hand():
    course = Course(zeta=10.0, alpha=0.5, largest=2.8, begin=1, end=8)
    # Running risks: natural stays 1; robust .2, .19, .181, then .9 of the last + .1 of the new.
    robust = [0.2, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0]
    running = [0.2]
    for new in robust[1:]:
        running.append(0.9 * running[-1] + 0.1 * new)
    ratios = [1 / value for value in running]
    # 5, 5.3, 5.5, 5.8, 6.4, 7.1, 7.9, 8.8, 9.8, 1.7: below 9.5 but for the last but one.
    assert [round(ratio, 1) for ratio in ratios] == [5.0, 5.3, 5.5, 5.8, 6.4, 7.1, 7.9, 8.8, 9.8, 1.7]
    expected = [2.0, 2.5, 2.8, 2.8, 2.8, 2.8, 2.8, 2.8, 2.8, 2.8]
    np.testing.assert_allclose(moved(LambdaController(2.0, course), [(1.0, r) for r in robust]), expected, rtol=1e-6)


def test_lambda_falls_to_its_start_and_stays_inside_the_band():
    course = Course(zeta=10.0, alpha=0.5, largest=60.0)
    controller = LambdaController(1.0, course)
    assert moved(controller, [(1.0, 0.2)] * 3) == pytest.approx([1.5, 2.0, 2.5])
    inside = LambdaController(1.0, course)
    assert moved(inside, [(1.0, 0.1), (1.0, 0.104), (1.0, 0.096)]) == [1.0, 1.0, 1.0]
    # R goes to 100: two steps inside or below the band, then down to the start and not below it.
    assert min(moved(controller, [(10.0, 0.1)] * 30)) == 1.0
    fixed = LambdaController(6.0, Course())
    assert moved(fixed, [(1.0, 0.5), (1.0, 0.001)]) == [6.0, 6.0] and fixed.batches == 2


def test_a_batch_without_finite_risks_changes_nothing():
    controller = LambdaController(1.0, Course(zeta=10.0, alpha=0.5, largest=60.0))
    moved(controller, [(1.0, 0.2)])
    before = controller.state()
    moved(controller, [(float("nan"), 0.2), (1.0, float("inf"))])
    assert controller.state() == before and before["lambda"] == 1.5


def test_lambda_by_width():
    assert width_ratio("wrn34_10_cifar", "wrn34_1_cifar") == 10
    assert width_ratio("mlp64x2_digits", "mlp16x2_digits") == 4
    for thin in ("wrn28_1_cifar", "mlp16x2_digits", "wrn34_ten_cifar"):
        with pytest.raises(ValueError, match="thin_network"):
            width_ratio("wrn34_10_cifar", thin)
    # 6 sqrt(10) = 18.97, the sheet's table.
    found = controller_of(config("wrn34_10_cifar", adv_lambda_mode="sqrt", thin_network="wrn34_1_cifar"), 10)
    assert float(found.value()) == pytest.approx(18.9737, abs=1e-4) and found.course.zeta is None


def test_the_course_follows_the_table():
    app = built(train={"num_accumulated_batches": 1}, adv_lambda_mode="war", war_zeta="5", war_freeze_epoch=4)
    # 24 rows in batches of 8: 3 steps an epoch.
    assert app.controller.course == Course(zeta=5.0, alpha=0.8 / 3, largest=60.0, begin=6, end=12)


# Runs --------------------------------------------------------------------------------------------------------


def train(app: AdversarialTraining, folder: Path, reporter=None) -> dict:
    settings = TrainConfig(num_epochs=3, learning_rate=0.01, log_step_count_steps=1, lr_decay="constant")
    batches = Batches(TABLE, 8, shuffle=True, seed=1)
    trainer = Trainer(app, settings, RuntimeConfig(seed=5, deterministic=True), folder, reporter)
    trainer.fit(batches, Batches(TABLE, 8, shuffle=False))
    state = json.loads((folder / "model.ckpt-9" / "state.json").read_text())
    return {"state": state["task"], "weights": app.model.get_weights(), "metrics": state["metrics"]}


WAR = {"adv_lambda_mode": "war", "war_zeta": "4000", "war_skip_epochs": 0, "war_alpha": 0.3, "adv_lambda": 1.0}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("unbroken")
    app = built(**WAR)
    (folder / "train_config.json").write_text(json.dumps(app.config.model_dump(mode="json")))
    return {**train(app, folder), "folder": folder, "app": app}


def test_a_resumed_run_has_the_same_lambda_and_weights(unbroken, tmp_path):
    with pytest.raises(Interrupted):
        train(built(**WAR), tmp_path, StopAt(4))
    half = json.loads((tmp_path / "model.ckpt-4" / "state.json").read_text())["task"]
    assert half["batches"] == 4 and half["lambda"] == pytest.approx(2.2)
    found = train(built(**WAR), tmp_path)
    assert found["state"] == unbroken["state"] and found["metrics"] == unbroken["metrics"]
    assert found["state"]["lambda"] == pytest.approx(1 + 9 * 0.3) and found["state"]["batches"] == 9
    for a, b in zip(found["weights"], unbroken["weights"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluation_reports_lambda_and_robustness(unbroken):
    metrics = unbroken["metrics"]
    assert metrics["adv_lambda"] == pytest.approx(3.7)
    assert {"robust_accuracy", "stability", "local_lipschitz", "risk_ratio"} <= metrics.keys()
    assert metrics["robust_accuracy"] >= metrics["accuracy"] + metrics["stability"] - 1 - 1e-9


def test_zeta_is_the_ratio_at_the_end_of_the_thin_run(unbroken):
    wide = config("mlp64x1_digits", adv_lambda_mode="war", war_zeta=str(unbroken["folder"]), train={"num_epochs": 3})
    state = unbroken["state"]
    assert controller_of(wide, 3).course.zeta == pytest.approx(state["natural_risk"] / state["robust_risk"])
    other = config(adv_lambda_mode="war", war_zeta=str(unbroken["folder"]), attack_steps=4)
    with pytest.raises(ConfigError, match="adversarial.attack_steps differs"):
        controller_of(other, 3)


def test_an_attack_of_evaluation_does_not_depend_on_the_batch(unbroken):
    app = unbroken["app"]

    def found(rows) -> dict[str, np.ndarray]:
        batch = {name: tf.constant(column[rows]) for name, column in TABLE.columns.items()}
        return {name: value.numpy() for name, value in app.forward(batch).items()}

    every, some = found(np.arange(ROWS)), found(np.array([20, 3, 11]))
    assert {"logits", "adversarial_logits", "steepness", "robust_risk"} == every.keys()
    for name, value in every.items():
        np.testing.assert_allclose(some[name], value[[20, 3, 11]], atol=1e-4, err_msg=name)
    assert (every["robust_risk"] > 0).all() and (every["steepness"] > 0).all()
    # Without labels there is nothing to attack: prediction and export.
    plain = app.forward({"image": tf.constant(TABLE.columns["image"])})
    assert plain.keys() == {"logits"}
    batch = TABLE.batch(range(4))
    assert app.model_inputs(batch).keys() == {"image"}
    assert app.evaluation_inputs(batch).keys() == {"image", "label_id", "row_number"}


def test_the_start_of_an_attack_is_new_in_every_step():
    app, seen = built(), []
    plain = app.train_step

    def note(step, batch):
        tf.py_function(lambda noise: seen.append(noise.numpy()), [batch["start_noise"]], [])
        return plain(step, batch)

    app.train_step = note
    engine = Engine(app, TrainConfig(), RuntimeConfig(seed=7), 6)
    for rows in Batches(TABLE, 8, shuffle=False).epoch(0):
        engine.run_step([rows])
    assert len(seen) == 3 and not np.array_equal(seen[0], seen[1])
    assert np.std(seen) == pytest.approx(0.01, rel=0.1)


# What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("adversarial", {"adv_lambda_mode": "war"}, "needs adversarial.war_zeta"),
        ("adversarial", {"adv_lambda_mode": "war", "war_zeta": "no/such/run"}, "neither a number nor a run folder"),
        ("adversarial", {"adv_lambda_mode": "war", "war_zeta": "-1"}, "must be above 0"),
        ("adversarial", {"adv_lambda_mode": "war", "war_zeta": "1", "adv_lambda": 70}, "above adversarial.war_lambda"),
        ("adversarial", {"adv_lambda_mode": "sqrt"}, "needs adversarial.thin_network"),
        ("adversarial", {"eval_attack": "pgd"}, "unknown attack"),
        ("robustness", {"report_attacks": "pgd20,square"}, "unknown attack"),
        ("robustness", {"report_factors": [0.0]}, "above 0"),
        ("augment", {"mixup_alpha": 0.2}, "mixup_alpha must be 0"),
        ("train", {"class_weights": "balanced"}, "class_weights cannot be used"),
        ("runtime", {"mixed_precision": "float16"}, "use bfloat16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(section, values, expected):
    with pytest.raises(ValidationError, match=expected):
        AdversarialTrainingConfig(**{section: values})


def test_two_classes_have_no_ratio_of_logits_and_scores_no_attack():
    two = config(eval_attack="apgd9").model_copy(update={"data": config().data.model_copy()})
    two.data.label_enumerate_values = "cat,dog"
    with pytest.raises(ConfigError, match="use apgd_ce9"):
        AdversarialTraining(two).load_assets(None)
    two.data.label_enumerate_values = None
    with pytest.raises(ConfigError, match="needs a task with one class per row"):
        AdversarialTraining(two).load_assets(None)


def test_war_refuses_devices_that_share_a_batch():
    wanted = config(adv_lambda_mode="war", war_zeta="5")
    wanted.distribution.distribution_strategy = "mirrored"
    app = AdversarialTraining(wanted)
    app.load_assets(None)
    app.on_train_table(TABLE)
    with pytest.raises(ConfigError, match="needs the risks of all rows"):
        app.build_model()
