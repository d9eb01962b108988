"""Optimizers against NumPy versions of their published formulas, several steps, in float64 and float32."""

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.config.job import TrainConfig
from easytransfer.errors import ConfigError
from easytransfer.optim import LAMB, SGD, Adadelta, Adagrad, AdamW, build_optimizer

STEPS = 6
RATES = [0.0, 0.01, 0.02, 0.02, 0.01, 0.005]
NAMES = ["dense/kernel", "dense/bias", "encoder/layer_norm/gamma", "embeddings/LayerNorm/beta", "zero/kernel"]
DECAYED = [True, False, False, False, True]


def setup(dtype):
    random = np.random.default_rng(0)
    shapes = [(3, 4), (4,), (4,), (4,), (2, 2)]
    values = [random.normal(size=shape).astype(dtype) for shape in shapes]
    values[-1][:] = 0  # LAMB: |w| = 0 means no layer adaptation.
    gradients = [[random.normal(size=shape).astype(dtype) for shape in shapes] for _ in range(STEPS)]
    variables = [tf.Variable(value, name=name) for value, name in zip(values, NAMES, strict=True)]
    return values, gradients, variables


def run(optimizer, gradients):
    step = tf.function(lambda gradient, rate: optimizer.apply(gradient, rate))
    for gradient, rate in zip(gradients, RATES, strict=True):
        step([tf.constant(g) for g in gradient], tf.constant(rate, tf.float64))
    return [v.numpy() for v in optimizer.variables_updated]


def adamw_oracle(w, gradients, factor, decay, b1=0.9, b2=0.999, eps=1e-6):
    w, m, v = w.astype(np.float64), 0.0, 0.0
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
        g = g.astype(np.float64)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        eta = factor * rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        w = w - eta * (m / (np.sqrt(v) + eps) + decay * w)
    return w


def lamb_oracle(w, gradients, factor, decay, adapt=True, b1=0.9, b2=0.999, eps=1e-6):
    w, m, v = w.astype(np.float64), 0.0, 0.0
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * w
        norms = np.linalg.norm(w), np.linalg.norm(u)
        ratio = norms[0] / norms[1] if adapt and min(norms) > 0 else 1.0
        w = w - factor * rate * ratio * u
    return w


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_formula_with_exclusions_and_factors(dtype, tolerance, decay):
    values, gradients, variables = setup(dtype)
    factors = [1.0, 0.5, 1.0, 0.25, 1.0]
    result = run(AdamW(variables, factors=factors, weight_decay=decay), gradients)
    for i, value in enumerate(values):
        expected = adamw_oracle(value, [g[i] for g in gradients], factors[i], decay * DECAYED[i])
        np.testing.assert_allclose(result[i], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
def test_lamb_formula_with_exclusions(dtype, tolerance):
    values, gradients, variables = setup(dtype)
    result = run(LAMB(variables, weight_decay=0.1, no_adaptation=("bias",)), gradients)
    for i, value in enumerate(values):
        expected = lamb_oracle(value, [g[i] for g in gradients], 1.0, 0.1 * DECAYED[i], adapt="bias" not in NAMES[i])
        np.testing.assert_allclose(result[i], expected, rtol=tolerance, atol=tolerance)


def test_lamb_excluded_variable_differs_from_adapted_one():
    _, gradients, variables = setup("float64")
    _, _, others = setup("float64")
    plain = run(LAMB(variables), gradients)
    excluded = run(LAMB(others, no_adaptation=("kernel",)), gradients)
    assert not np.allclose(plain[0], excluded[0])
    np.testing.assert_array_equal(plain[1], excluded[1])


def test_adagrad_formula():
    values, gradients, variables = setup("float64")
    result = run(Adagrad(variables), gradients)
    for i, w in enumerate(values):
        total = 0.1
        for gradient, rate in zip(gradients, RATES, strict=True):
            total = total + gradient[i] ** 2
            w = w - rate * gradient[i] / np.sqrt(total)
        np.testing.assert_allclose(result[i], w, rtol=1e-12)


def test_adadelta_formula():
    values, gradients, variables = setup("float64")
    result = run(Adadelta(variables), gradients)
    for i, w in enumerate(values):
        square, update = np.zeros_like(w), np.zeros_like(w)
        for gradient, rate in zip(gradients, RATES, strict=True):
            square = 0.95 * square + 0.05 * gradient[i] ** 2
            change = np.sqrt(update + 1e-8) / np.sqrt(square + 1e-8) * gradient[i]
            update = 0.95 * update + 0.05 * change**2
            w = w - rate * change
        np.testing.assert_allclose(result[i], w, rtol=1e-10)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_equals_torch(decay, nesterov):
    torch = pytest.importorskip("torch")
    values, gradients, variables = setup("float64")
    result = run(SGD(variables, momentum=0.8, nesterov=nesterov, weight_decay=decay), gradients)
    for i, value in enumerate(values):
        theirs = torch.tensor(value, requires_grad=True)
        decayed = decay * DECAYED[i]
        optimizer = torch.optim.SGD([theirs], lr=0.0, momentum=0.8, nesterov=nesterov, weight_decay=decayed)
        for gradient, rate in zip(gradients, RATES, strict=True):
            theirs.grad, optimizer.param_groups[0]["lr"] = torch.tensor(gradient[i]), rate
            optimizer.step()
        np.testing.assert_allclose(result[i], theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_missing_gradient_leaves_variable_and_slots_untouched():
    variables = [tf.Variable([1.0, 2.0]), tf.Variable([3.0])]
    optimizer = AdamW(variables, weight_decay=0.5)
    optimizer.apply([tf.constant([0.1, 0.1]), None], tf.constant(0.1))
    assert variables[1].numpy() == 3.0 and float(optimizer.slots[1]["v"][0]) == 0
    assert optimizer.iterations.numpy() == 1


def test_first_adamw_step_in_float32_has_the_size_of_the_rate():
    # 1 - 0.999 is off by 5e-5 in float32; with epsilon 0 the first step must still be lr exactly.
    variable = tf.Variable(np.zeros(4, np.float32))
    AdamW([variable], epsilon=0.0).apply([tf.constant([1e-3, -2.0, 5.0, -1e-6])], tf.constant(1e-3))
    np.testing.assert_allclose(variable.numpy(), [-1e-3, 1e-3, -1e-3, 1e-3], rtol=5e-7)


@pytest.mark.parametrize(
    ("options", "kind", "beta2"),
    [
        ({}, AdamW, 0.999),
        ({"compat_v1": True}, AdamW, 0.98),
        ({"compat_v1": True, "weight_decay_ratio": 0.01}, AdamW, 0.999),
        ({"adam_beta2": 0.95}, AdamW, 0.95),
        ({"optimizer_type": "lamb"}, LAMB, 0.999),
        ({"optimizer_type": "adagrad"}, Adagrad, None),
        ({"optimizer_type": "adadelta"}, Adadelta, None),
        ({"optimizer_type": "sgd", "weight_decay_ratio": 5e-4}, SGD, None),
    ],
)
def test_build_optimizer(options, kind, beta2):
    optimizer = build_optimizer(TrainConfig(**options), [tf.Variable([1.0], name="kernel")])
    assert type(optimizer) is kind
    assert getattr(optimizer, "beta2", None) == beta2
    assert optimizer.decays == [options.get("weight_decay_ratio", 0.0)]


def test_weight_decay_with_adagrad_is_refused():
    with pytest.raises(ConfigError, match="weight_decay_ratio"):
        build_optimizer(TrainConfig(optimizer_type="adagrad", weight_decay_ratio=0.1), [tf.Variable([1.0])])


def test_bert_variable_names_are_split_into_decayed_and_not():
    nlp = pytest.importorskip("official.nlp.modeling.networks")
    encoder = nlp.BertEncoderV2(
        vocab_size=11, hidden_size=8, num_layers=1, num_attention_heads=2, max_sequence_length=8, inner_dim=8
    )
    words = {"input_word_ids": tf.ones([1, 4], tf.int32), "input_mask": tf.ones([1, 4], tf.int32)}
    encoder({**words, "input_type_ids": tf.zeros([1, 4], tf.int32)})
    optimizer = AdamW(encoder.trainable_variables, weight_decay=0.1)
    pairs = zip(encoder.trainable_variables, optimizer.decays, strict=True)
    assert {v.name.rsplit("/", 1)[-1] for v, decay in pairs if decay} == {"embeddings:0", "kernel:0"}
    assert (
        sum(decay == 0 for decay in optimizer.decays) == sum(v.shape.rank == 1 for v in encoder.trainable_variables) + 3
    )
