"""Selection of source rows: rewards and losses against NumPy, and policies that find out which labels are wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from appzoo.domain_transfer.app import DomainTransfer
from appzoo.domain_transfer.config import DomainTransferConfig
from appzoo.domain_transfer.selection import gains, likeness, policy_loss, standardised, states
from easytransfer import keras
from easytransfer.layers.draws import RowDraws


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


def cross_entropy(x: np.ndarray, labels: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -np.log(softmax(x @ w + b))[np.arange(len(x)), labels]


def gains_of_numpy(x, labels, w, b, kept, source, held, rate) -> np.ndarray:
    """Draw by draw, row by row."""
    found = []
    for chosen in kept.T.astype(bool):
        step_w, step_b = np.zeros_like(w), np.zeros_like(b)
        for row, label in zip(x[chosen], labels[chosen], strict=True):
            error = softmax(row @ w + b) - np.eye(len(b))[label]
            step_w += np.outer(row, error) / source.sum()
            step_b += error / source.sum()
        rows = held > 0
        before = cross_entropy(x[rows], labels[rows], w, b).mean()
        after = cross_entropy(x[rows], labels[rows], w - rate * step_w, b - rate * step_b).mean()
        found.append((before - after) / rate)
    return np.array(found)


def test_rewards_are_those_of_numpy():
    random = np.random.default_rng(0)
    x, labels = random.normal(0, 1, (9, 5)), random.integers(0, 3, 9)
    w, b = random.normal(0, 0.4, (5, 3)), random.normal(0, 0.4, 3)
    kept, held = np.zeros((9, 3)), np.repeat([0.0, 1.0], [5, 4])
    kept[:3, 0] = kept[2:5, 1] = 1
    source = 1 - held
    arrays = [tf.constant(value, tf.float32) for value in (w, b, kept, source, held)]
    found = gains(tf.constant(x, tf.float32), tf.constant(labels), *arrays, 0.3)
    np.testing.assert_allclose(found, gains_of_numpy(x, labels, w, b, kept, source, held, 0.3), rtol=1e-4, atol=1e-5)
    assert abs(float(found[2])) < 1e-6, "nothing is kept, nothing is gained"

    logits = random.normal(0, 2, 9).astype(np.float32)
    each = -np.log(1 - 1 / (1 + np.exp(-logits.astype(float))))
    np.testing.assert_allclose(likeness(logits, arrays[2]), [each[:3].mean(), each[2:5].mean(), 0], rtol=1e-5)
    values = random.normal(3, 2, 6)
    np.testing.assert_allclose(standardised(tf.constant(values)), (values - values.mean()) / values.std(), rtol=1e-5)
    np.testing.assert_allclose(standardised(tf.ones(4)), np.zeros(4))


def test_the_gradient_of_the_policy_is_that_of_reinforce():
    random = np.random.default_rng(1)
    logits, advantage = random.normal(0, 1, 6), random.normal(0, 1, 4)
    actions, source = random.integers(0, 2, (6, 4)).astype(float), np.array([1, 1, 1, 1, 0, 0.0])
    keep = 1 / (1 + np.exp(-logits))
    variable = tf.Variable(logits, dtype=tf.float32)
    arrays = [tf.constant(value, tf.float32) for value in (actions, source, advantage)]
    with tf.GradientTape() as tape:
        loss = policy_loss(variable, *arrays)
    logs = (np.where(actions, np.log(keep)[:, None], np.log(1 - keep)[:, None]) * source[:, None]).sum(axis=0)
    assert float(loss) == pytest.approx(-(advantage * logs).mean(), rel=1e-5)
    expected = -(advantage * (actions - keep[:, None])).mean(axis=1) * source
    np.testing.assert_allclose(tape.gradient(loss, variable), expected, atol=1e-6)


# A poisoned source -------------------------------------------------------------------------------------------

SOURCE_ROWS, TARGET_ROWS, HELD_ROWS = 32, 16, 16


@pytest.fixture(scope="module")
def tiny(tiny_model) -> str:
    return str(tiny_model)


def prepared(tiny: str, algorithm: str, **settings) -> DomainTransfer:
    values = {
        "model_name": "domain_transfer",
        "data": {"label_enumerate_values": "neg,pos", "first_sequence": "text", "label_name": "label"},
        "model": {"pretrain_model_name_or_path": tiny},
        "transfer": {"algorithm": algorithm, **settings},
    }
    values["data"]["sequence_length"] = 12
    app = DomainTransfer(DomainTransferConfig.model_validate(values))
    app.load_assets(None)
    app.build_model()
    return app


def poisoned(random: np.random.Generator, hidden: int) -> dict[str, np.ndarray]:
    """Features of two classes; the first half of the source rows has the other label."""
    count = SOURCE_ROWS + TARGET_ROWS + HELD_ROWS
    label = random.integers(0, 2, count)
    features = random.normal(0, 0.5, (count, hidden))
    features[:, :4] += np.where(label, 0.7, -0.7)[:, None]
    given = label.copy()
    given[: SOURCE_ROWS // 2] = 1 - given[: SOURCE_ROWS // 2]
    return {
        "features": features.astype(np.float32),
        "label_id": given.astype(np.int32),
        "domain": np.repeat([0, 1], [SOURCE_ROWS, count - SOURCE_ROWS]).astype(np.int32),
        "held": np.repeat([0.0, 1.0], [count - HELD_ROWS, HELD_ROWS]).astype(np.float32),
        "example_weight": np.ones(count, np.float32),
    }


@pytest.mark.parametrize("algorithm", ["rtl", "mgtl"])
def test_losses_of_a_selection_are_those_of_numpy(algorithm, tiny):
    app = prepared(tiny, algorithm, selection_draws=3, likeness_weight=0.6)
    random = np.random.default_rng(2)
    layers = [app.model.head, app.model.selector, *([app.model.discriminator] if algorithm == "mgtl" else [])]
    for variable in (variable for layer in layers for variable in layer.variables):
        variable.assign(random.normal(0, 0.3, variable.shape))
    batch = poisoned(random, app.encoder.config.hidden_size)
    batch["example_weight"][3] = 0
    x, label, domain = (batch[name] for name in ("features", "label_id", "domain"))
    weight, held = batch["example_weight"], batch["held"]
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    step = SimpleNamespace(draws=RowDraws(tf.constant([4, 5]), tf.constant(len(x))))
    found = app.training_losses(tensors, tensors["features"], step)
    found = {name: float(total / divisor) for name, (total, divisor) in found.items()}

    def network(layers, values):
        a, b, c, e = (variable.numpy() for variable in layers.variables)
        return (np.maximum(values @ a + b, 0) @ c + e)[:, 0]

    w, b = (variable.numpy() for variable in app.model.head.variables)
    ce = cross_entropy(x, label, w, b)
    state = np.concatenate([x, ce[:, None], softmax(x @ w + b)], axis=1)
    np.testing.assert_allclose(states(x, x @ w + b, label), state, atol=1e-5)
    source = (domain == 0) * weight
    keep = 1 / (1 + np.exp(-network(app.model.selector.policy, state)))
    drawn = RowDraws(tf.constant([4, 5]), tf.constant(len(x))).uniform(3).numpy()
    actions = (drawn < keep[:, None]).astype(float)
    kept = actions * source[:, None]
    reward = gains_of_numpy(x, label, w, b, kept, source, held, 0.1)
    learnt = weight * (1 - held)
    rows = learnt * np.where(domain == 0, kept[:, 0], 1)
    expected = {"loss": (ce * rows).sum() / learnt.sum()}
    if algorithm == "rtl":
        mean = (state * source[:, None]).sum(axis=0, keepdims=True) / source.sum()
        advantage = reward - network(app.model.selector.critic, mean)[0]
        expected["critic_loss"] = (advantage**2).mean()
    else:
        d = 1 / (1 + np.exp(-network(app.model.discriminator, x)))
        like = (-np.log(1 - d)[:, None] * kept).sum(axis=0) / kept.sum(axis=0)
        scores = [(each - each.mean()) / each.std() for each in (reward, like)]
        advantage = scores[0] + 0.6 * scores[1]
        seen = np.where(domain == 1, weight, kept[:, 0])
        expected["domain_loss"] = (-np.log(np.where(domain, d, 1 - d)) * seen).sum() / weight.sum()
    logs = (np.where(actions, np.log(keep)[:, None], np.log(1 - keep)[:, None]) * source[:, None]).sum(axis=0)
    expected["policy_loss"] = -(advantage * logs).mean() / source.sum()
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)


@pytest.mark.slow  # 400 steps
@pytest.mark.parametrize("algorithm", ["rtl", "mgtl"])
def test_a_policy_finds_out_which_half_of_the_source_has_wrong_labels(algorithm, tiny):
    app = prepared(tiny, algorithm)
    model, random = app.model, np.random.default_rng(3)
    hidden = app.encoder.config.hidden_size
    settings = app.config.transfer
    rates = {"default": 3e-3, "domain": settings.domain_learning_rate, "selector": settings.selection_learning_rate}
    parts = [
        (part.variables if name != "default" else model.head.variables, keras.optimizers.Adam(rates[name]))
        for name, part in app.optimizers().items()
    ]
    for variables, optimizer in parts:
        optimizer.build(variables)

    @tf.function
    def learn(batch, number):
        step = SimpleNamespace(draws=RowDraws(tf.stack([7, number]), tf.shape(batch["held"])[0]))
        with tf.GradientTape() as tape:
            losses = app.training_losses(batch, batch["features"], step)
            value = tf.add_n([total / weight for total, weight in losses.values()])
        gradients = tape.gradient(value, [variables for variables, _ in parts])
        for (variables, optimizer), given in zip(parts, gradients, strict=True):
            optimizer.apply_gradients(zip(given, variables, strict=True))

    def kept_of(batch) -> np.ndarray:
        state = states(batch["features"], model.head(batch["features"]), batch["label_id"])
        return tf.sigmoid(model.selector.policy(state)).numpy()[:SOURCE_ROWS]

    def batch_of() -> dict[str, tf.Tensor]:
        return {name: tf.constant(value) for name, value in poisoned(random, hidden).items()}

    begin = kept_of(batch_of())
    assert 0.3 < begin.mean() < 0.7
    for number in range(400):
        learn(batch_of(), tf.constant(number))
    keep = np.concatenate([kept_of(batch_of()).reshape(2, -1) for _ in range(20)], axis=1)
    wrong, clean = keep
    assert clean.mean() > 0.8, "clean rows are kept"
    assert clean.sum() / keep.sum() > 0.8, "what is kept is clean"
