"""Co-training: one step against torch, division of weight decay, views, start values, exports of single members."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.cli.reader import JobReader
from appzoo.co_training.app import SEED_STEP, CoTraining
from appzoo.co_training.config import CoTrainingConfig
from appzoo.co_training.losses import jensen_shannon
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.train.engine import Engine
from easytransfer.train.step import EVALUATION, Step
from easytransfer.train.train_schedule import batch_signature
from easytransfer.train.trainer import Trainer
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named

RANDOM = np.random.default_rng(8)
LABELS = ["cat", "dog", "owl"]
DENSE = ["mlp16x1_digits"] * 2
DIVIDED = {"network": "wrn10_4_b4_digits", "split": 2}
ROWS = EncodedTable(
    {
        "image": RANDOM.integers(0, 256, (12, 8, 8, 1)).astype(np.uint8),
        "label_id": (np.arange(12) % 3).astype(np.int32),
    }
)
# No randomness but that of views.
PLAIN = {"crop_padding": 0, "horizontal_flip": False}


def make_app(model: dict | None = None, **sections) -> CoTraining:
    shape = {"image_size": 8, "channels": 1, "channel_mean": [0.5], "channel_std": [0.25]}
    values = {"train": {"batch_size": 12}, "runtime": {"seed": 4}, **sections}
    values["model"] = {**shape, **({"members": DENSE} if model is None else model)}
    app = CoTraining(
        CoTrainingConfig(model_name="co_training", data={"label_enumerate_values": ",".join(LABELS)}, **values)
    )
    app.load_assets(None)
    app.on_train_table(ROWS)
    return app


def built(model: dict | None = None, **sections) -> CoTraining:
    app = make_app(model, **sections)
    app.build_model()
    return app


def batch(weight: list[float] | None = None) -> dict[str, np.ndarray]:
    found = ROWS.batch(range(len(ROWS)))
    return {**found, "example_weight": np.array(weight, np.float32)} if weight else found


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in arrays.items()}


def draws() -> RowDraws:
    return RowDraws(tf.constant([3, 4]), tf.constant(len(ROWS)))


class FirstEpoch(Step):
    training, epoch = True, tf.constant(0)


def make_engine(app: CoTraining, steps: int = 10) -> Engine:
    signature = batch_signature(Batches(ROWS, len(ROWS), shuffle=False))
    rows = -(-len(ROWS) // app.config.train.batch_size)
    return Engine(app, app.config.train, RuntimeConfig(seed=4), steps, epoch_batches=rows, signature=signature)


# The loss and one step ---------------------------------------------------------------------------------------


def test_published_values_of_the_whole_loss():
    logits = np.array([[[2, 0, -1], [1, 1, 0]], [[0.5, 0.5, 0.5], [0, 1, 2]]], np.float32)
    rows = {"label_id": tf.constant([0, 2]), "example_weight": tf.ones([2])}
    app = make_app()

    def mean(step: Step = EVALUATION) -> dict[str, float]:
        found = app.losses(rows, {"member_logits": tf.constant(logits)}, step)
        return {name: float(total / weight) for name, (total, weight) in found.items()}

    full = mean()
    assert full["loss"] == pytest.approx(1.2690296, abs=1e-6)
    assert sum(full.values()) == pytest.approx(1.3112406, abs=1e-6)
    first = mean(FirstEpoch())
    assert first["agreement"] == pytest.approx(0.00042211, abs=1e-8)
    app = make_app({"members": DENSE, "agreement": "kl"})
    assert mean()["agreement"] == pytest.approx(0.3545406, abs=1e-6)
    app = make_app(train={"label_smoothing": 0.1})
    logits[:, 1] = logits[:, 0]
    assert mean()["loss"] == pytest.approx(2 * 0.7175626, abs=1e-6)
    alone = make_app({"members": DENSE, "agreement_weight": 0})
    assert alone.losses(rows, {"member_logits": tf.constant(logits)}, EVALUATION).keys() == {"loss"}


def torch_step(torch, weights, images, targets, example_weight, agreement: float):
    """Gradients of the mean loss of two dense networks of one hidden layer; targets are distributions."""
    parameters = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in weights]
    total, predictions = 0, []
    row_weight = torch.tensor(example_weight, dtype=torch.float64)
    for number in range(2):
        first, first_bias, last, last_bias = parameters[4 * number : 4 * number + 4]
        x = torch.tensor((images[:, number].reshape(len(images), -1) - 0.5) / 0.25, dtype=torch.float64)
        logits = torch.relu(x @ first + first_bias) @ last + last_bias
        total = total - ((torch.tensor(targets) * torch.log_softmax(logits, -1)).sum(-1) * row_weight).sum()
        predictions.append(torch.softmax(logits, -1))
    mean = sum(predictions) / 2
    entropies = [-(p * p.log()).sum(-1) for p in (mean, *predictions)]
    divergence = entropies[0] - (entropies[1] + entropies[2]) / 2
    total = total + agreement * (divergence * row_weight).sum()
    (total / row_weight.sum()).backward()
    return [parameter.grad.numpy() for parameter in parameters]


def test_three_steps_equal_torch(monkeypatch):
    """Views, mixup, label smoothing, schedule, padding rows, divided decay and AdamW together."""
    torch = pytest.importorskip("torch")
    train = {"learning_rate": 0.01, "lr_decay": "constant", "warmup_ratio": 0.0, "adam_epsilon": 1e-3}
    app = built(
        {"members": DENSE, "agreement_warmup_epochs": 2, "weight_decay_division": "exp"},
        train={**train, "batch_size": 12, "label_smoothing": 0.1, "weight_decay_ratio": 0.1},
        augment={"crop_padding": 1, "mixup_alpha": 0.4},
    )
    rows = batch([1.0] * 10 + [0.0] * 2)
    seen = app.training_batch(tensors(rows), draws())
    monkeypatch.setattr(app, "training_batch", lambda given, numbers: seen)
    weights = [variable.numpy().astype(np.float64) for m in app.model.members for variable in m.trainable_variables]
    share = seen["own_share"].numpy()[:, None].astype(np.float64)
    targets = share * np.eye(3)[rows["label_id"]] + (1 - share) * np.eye(3)[seen["partner_label_id"]]
    targets = 0.9 * targets + 0.1 / 3
    m, v = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    engine = make_engine(app)
    for step, agreement in enumerate((0.005, 0.25, 0.5, 0.5), 1):
        engine.run_step([rows])
        gradients = torch_step(torch, weights, seen["image"].numpy(), targets, rows["example_weight"], agreement)
        rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for i, gradient in enumerate(gradients):
            decay = 0.1 * np.exp(-0.5) if weights[i].ndim == 2 else 0.0
            m[i], v[i] = 0.9 * m[i] + 0.1 * gradient, 0.999 * v[i] + 0.001 * gradient**2
            weights[i] = weights[i] - rate * (m[i] / (np.sqrt(v[i]) + 1e-3) + decay * weights[i])
    found = [variable.numpy() for m in app.model.members for variable in m.trainable_variables]
    assert max(np.abs(a - b).max() for a, b in zip(found, weights, strict=True)) < 1e-5


def test_class_weights_count_in_both_terms():
    app = make_app(train={"batch_size": 12, "class_weights": "1,2,0.5"}, augment={**PLAIN, "mixup_alpha": 0.4})
    mixed = app.training_batch(tensors(batch([1.0] * 9 + [0.0] * 3)), draws())
    logits = RANDOM.normal(size=(12, 2, 3)).astype(np.float32)
    found = app.losses(mixed, {"member_logits": tf.constant(logits)}, EVALUATION)
    np.testing.assert_allclose(tf.reduce_sum(app._row_weight(mixed)), found["loss"].weight, rtol=1e-6)
    assert found["agreement"].weight is found["loss"].weight
    expected = 0.5 * float(tf.reduce_sum(jensen_shannon(logits) * app._row_weight(mixed)))
    assert float(found["agreement"].sum) == pytest.approx(expected, rel=1e-6)
    assert float(found["agreement"].sum) != pytest.approx(0.5 * float(tf.reduce_sum(jensen_shannon(logits))), rel=1e-2)


def test_agreement_pulls_the_predictions_together():
    def divergence_after_training(weight: float) -> float:
        model = {"members": DENSE, "agreement_weight": weight, "agreement_warmup_epochs": 0}
        app = built(model, train={"batch_size": 12, "num_epochs": 30, "learning_rate": 0.01}, augment=PLAIN)
        Trainer(app, app.config.train, app.config.runtime).fit(Batches(ROWS, 12, shuffle=True))
        return float(tf.reduce_mean(jensen_shannon(app.model({"image": ROWS.columns["image"]})["member_logits"])))

    assert divergence_after_training(5.0) < 0.5 * divergence_after_training(0.0)


# Schedule, decay ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "factor"), [(1, 1.0), (2, 0.6065), (4, 0.4724)])
def test_weight_decay_is_divided(split, factor):
    settings = {**DIVIDED, "split": split, "weight_decay_division": "exp"}
    app = built(settings, train={"weight_decay_ratio": 0.3})
    assert app.optimizers()["default"].settings["weight_decay_ratio"] == pytest.approx(0.3 * factor, rel=1e-4)
    assert app.optimizers()["not_decayed"].settings == {"weight_decay_ratio": 0.0}
    settings["weight_decay_division"] = "none"
    app = built(settings, train={"weight_decay_ratio": 0.3})
    assert app.optimizers()["default"].settings["weight_decay_ratio"] == 0.3


def test_biases_and_offsets_are_not_decayed_and_every_variable_is_trained_once():
    app = built({"members": ["split2_wrn10_4_b4_digits", "split4_densenet_bc10_k12_cifar"]})
    lists = {name: part.variables for name, part in app.optimizers().items()}
    names = {key: {v.name.split(":")[0].rpartition("/")[2] for v in found} for key, found in lists.items()}
    assert names == {"default": {"kernel", "gamma"}, "not_decayed": {"beta", "bias", "gamma"}}
    wide, dense = app.model.members
    own = {key: {id(v) for v in found} for key, found in lists.items()}
    assert all(id(v) in own["default"] for v in wide.trainable_variables if "gamma" in v.name)
    assert all(id(v) in own["not_decayed"] for v in dense.trainable_variables if "gamma" in v.name)
    assert sum(map(len, own.values())) == len(app.model.trainable_variables)


# Networks and views ------------------------------------------------------------------------------------------


def test_members_start_apart_and_the_first_like_the_network_alone():
    app = built(DIVIDED)
    first, second = (member.network.export_weights() for member in app.model.members)
    kernels = [name for name in first if name.endswith("kernel")]
    assert kernels and not any(np.array_equal(first[name], second[name]) for name in kernels)
    config = named("split2_wrn10_4_b4_digits")
    for number, weights in enumerate((first, second)):
        alone = CnnBackbone(config, 3, 4 + SEED_STEP * number).export_weights()
        assert all(np.array_equal(alone[name], weights[name]) for name in alone)


def test_each_member_sees_a_view_of_its_own_mixed_with_the_same_partner_by_the_same_share():
    app = make_app({**DIVIDED, "split": 4}, augment={**PLAIN, "crop_padding": 2, "mixup_alpha": 0.4})
    seen = app.training_batch(tensors(batch()), draws())
    assert seen["image"].shape == (12, 4, 8, 8, 1) and seen["own_share"].shape == (12,)
    images = seen["image"].numpy()
    assert not any(np.array_equal(images[:, 0], images[:, i]) for i in (1, 2, 3))
    # Without random changes all views of a row are equal: partner and share are common to them.
    app = make_app({**DIVIDED, "split": 4}, augment={**PLAIN, "mixup_alpha": 0.4})
    images = app.training_batch(tensors(batch()), draws())["image"].numpy()
    for i in (1, 2, 3):
        np.testing.assert_array_equal(images[:, 0], images[:, i])
    same = make_app({**DIVIDED, "views": "same"}, augment={**PLAIN, "crop_padding": 2})
    assert same.training_batch(tensors(batch()), draws())["image"].shape == (12, 8, 8, 1)


def test_views_go_to_their_members_and_one_image_to_all():
    app = built()
    views = RANDOM.uniform(size=(5, 2, 8, 8, 1)).astype(np.float32)
    found = app.model({"image": views})
    for i, member in enumerate(app.model.members):
        np.testing.assert_array_equal(found["member_logits"][:, i], member({"image": views[:, i]})["logits"])
    one = app.model({"image": views[:, 1]})["member_logits"]
    np.testing.assert_array_equal(one[:, 1], found["member_logits"][:, 1])
    np.testing.assert_allclose(found["logits"], tf.reduce_mean(found["member_logits"], axis=1), atol=1e-6)
    with pytest.raises(ValueError, match="3 views for 2 networks"):
        app.model({"image": np.zeros((1, 3, 8, 8, 1), np.float32)})


def test_dropout_of_a_member_does_not_depend_on_the_others():
    """What lets a worker compute one member alone: the second one draws the same with and without the first."""
    from easytransfer.layers.dropout import dropout_part, dropout_seed

    app = built()
    members = [CnnBackbone(named("mlp16x1_digits").replace(dropout=0.5), 3, seed) for seed in (1, 2)]
    for member, network in zip(app.model.members, members, strict=True):
        member.network = network
    images = RANDOM.uniform(size=(12, 8, 8, 1)).astype(np.float32)
    with dropout_seed(tf.constant([1, 2])):
        together = app.model({"image": images}, training=True)["member_logits"]
    with dropout_seed(tf.constant([1, 2])), dropout_part(2):
        alone = app.model.members[1]({"image": images}, training=True)["logits"]
    np.testing.assert_array_equal(together[:, 1], alone)
    assert not np.array_equal(alone, app.model.members[1]({"image": images})["logits"])


def test_shapes_of_the_members_are_stored(tmp_path):
    app = built({"members": ["mlp16x1_digits", "split2_wrn10_4_b4_digits"]})
    app.save_assets(tmp_path)
    again = CoTraining(app.config.model_copy(update={"model": app.config.model.model_copy(update={"members": []})}))
    again.load_assets(tmp_path)
    again.build_model(tmp_path)
    assert [member.network.config.family for member in again.model.members] == ["mlp", "wide_resnet"]
    again.model.set_weights(app.model.get_weights())
    images = {"image": ROWS.columns["image"]}
    np.testing.assert_array_equal(again.model(images)["logits"], app.model(images)["logits"])


# Serving -----------------------------------------------------------------------------------------------------


def test_an_exported_member_answers_like_the_member_inside_the_ensemble_and_brings_no_other(tmp_path):
    app = built(DIVIDED)
    spec = tf.TensorSpec([None, 8, 8, 1], tf.uint8)

    def served(signature: str = "predict_ids"):
        return tf.function(app.signatures(tmp_path)[signature].function).get_concrete_function(image=spec)

    ensemble = served()
    images = tf.constant(ROWS.columns["image"])
    every = ensemble(image=images)
    assert every["member_logits"].shape == (12, 2, 3)
    for number, member in enumerate(app.model.members, 1):
        app.model.answers_with = number
        alone = served()
        assert {id(v) for v in alone.variables} == {id(v) for v in member.variables}
        assert 2 * len(alone.variables) == len(ensemble.variables)
        found = alone(image=images)
        assert found.keys() == {"logits"}
        np.testing.assert_allclose(found["logits"], every["member_logits"][:, number - 1], atol=1e-6)
    assert len(np.unique(every["member_logits"][0])) > 3, "the members differ"


# What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": {"network": "resnet110_cifar", "split": 4}}, None),
        ({"model": {"network": "mobilenet_v2_cifar"}}, "no rule divides mobilenet_v2_cifar"),
        ({"model": {"network": "resnet110_cifar", "split": 3}}, "model.split=3"),
        ({"model": {"members": ["resnet8_cifra"]}}, "resnet8_cifra"),
        ({"model": {"export_member": 3}}, "there are 2 networks"),
        ({"distribution": {"tensor_parallel": 3}}, "must be the number of networks, 2"),
        ({"distribution": {"tensor_parallel": 2}}, None),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, expected):
    if expected is None:
        CoTrainingConfig(**values)
        return
    with pytest.raises(ValueError, match=expected):
        CoTrainingConfig(**values)


def test_the_command_line_shows_what_a_check_across_settings_says(repository, monkeypatch):
    """It said that the whole configuration `is a section of keys`."""
    monkeypatch.chdir(repository)
    words = ["--config=appzoo/co_training/configs/smoke.yaml", "--set=model.export_member=5"]
    with pytest.raises(ConfigError, match="^model.export_member=5: there are 2 networks"):
        JobReader("train", words, []).read()


def test_a_number_per_image_is_refused():
    app = CoTraining(CoTrainingConfig(data={"label_enumerate_values": ""}))
    with pytest.raises(ConfigError, match="one class per row"):
        app.load_assets(None)
