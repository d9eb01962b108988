"""Random branches, shifts and squeeze-and-excitation of image networks against NumPy."""

import numpy as np
import tensorflow as tf
from tiny_cnn import TINY

from easytransfer import keras
from easytransfer.layers.dropout import dropout_seed, next_seed
from modelzoo.cnn.keras_builder import KerasBuilder, PadChannels, ShakeDrop, ShakeShake, Shifted, StochasticDepth
from modelzoo.cnn.networks import excite

SEED = tf.constant([3, 7], tf.int32)
IMAGES = np.random.default_rng(0).standard_normal([64, 2, 3, 2]).astype(np.float32)


def draws(*bounds):
    """The uniform numbers that a layer draws first, second, ... inside `dropout_seed(SEED)`."""
    with dropout_seed(SEED):
        seeds = [next_seed() for _ in bounds]
    return [
        tf.random.stateless_uniform([64, 1, 1, 1], seed, low, high, alg="philox").numpy()
        for seed, (low, high) in zip(seeds, bounds, strict=True)
    ]


def forward_and_gradient(layer, *inputs, training=True):
    variables = [tf.constant(value) for value in inputs]
    with dropout_seed(SEED), tf.GradientTape() as tape:
        for variable in variables:
            tape.watch(variable)
        y = layer(variables if len(variables) > 1 else variables[0], training=training)
        loss = tf.reduce_sum(y)
    return y.numpy(), [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def test_stochastic_depth_drops_whole_images():
    (uniform,) = draws((0, 1))
    factor = (uniform >= 0.25) / 0.75
    y, (gradient,) = forward_and_gradient(StochasticDepth(0.25), IMAGES)
    np.testing.assert_allclose(y, IMAGES * factor, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.broadcast_to(factor, IMAGES.shape), rtol=1e-6)
    assert 0 < (factor == 0).sum() < 64
    np.testing.assert_array_equal(StochasticDepth(0.25)(IMAGES, training=False), IMAGES)


def test_shake_drop_is_the_formula_forward_and_backward():
    """Yamada et al. 2019, equation 6, with gate b: alpha in the forward pass, beta backward, the mean in prediction."""
    uniform, alpha, beta = draws((0, 1), (-1, 1), (0, 1))
    b = (uniform >= 0.4).astype(np.float32)
    y, (gradient,) = forward_and_gradient(ShakeDrop(0.4), IMAGES)
    np.testing.assert_allclose(y, IMAGES * (b + alpha - b * alpha), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, np.broadcast_to(b + beta - b * beta, IMAGES.shape), rtol=1e-5)
    assert 0 < b.sum() < 64
    np.testing.assert_allclose(ShakeDrop(0.4)(IMAGES, training=False), IMAGES * 0.6, rtol=1e-6)


def test_shake_shake_is_the_formula_forward_and_backward():
    alpha, beta = draws((0, 1), (0, 1))
    other = IMAGES[::-1].copy()
    y, gradients = forward_and_gradient(ShakeShake(), IMAGES, other)
    np.testing.assert_allclose(y, alpha * IMAGES + (1 - alpha) * other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[0], np.broadcast_to(beta, IMAGES.shape), rtol=1e-5)
    np.testing.assert_allclose(gradients[1], np.broadcast_to(1 - beta, IMAGES.shape), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ShakeShake()([IMAGES, other], training=False), (IMAGES + other) / 2, rtol=1e-6)


def test_random_layers_repeat_with_the_seed_only():
    layer = ShakeDrop(0.5)

    def run(seed):
        with dropout_seed(tf.constant(seed, tf.int32)):
            return [layer(IMAGES, training=True).numpy() for _ in range(2)]

    first, again, other = run([1, 2]), run([1, 2]), run([1, 3])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])


def test_random_layers_compute_in_half_precision():
    for layer in (ShakeDrop(0.5, dtype="float16"), StochasticDepth(0.5, dtype="float16")):
        y = layer(tf.cast(IMAGES, tf.float16), training=True)
        assert y.dtype == tf.float16 and np.isfinite(y.numpy()).all()


def test_padded_channels_and_shifted_images():
    np.testing.assert_array_equal(PadChannels(5)(IMAGES), np.pad(IMAGES, [(0, 0)] * 3 + [(0, 3)]))
    moved = np.pad(IMAGES, [(0, 0), (0, 1), (0, 1), (0, 0)])[:, 1:, 1:]
    np.testing.assert_array_equal(Shifted(1, 2)(IMAGES), moved[:, ::2, ::2])
    np.testing.assert_array_equal(Shifted(0, 1)(IMAGES), IMAGES)


def test_layers_are_rebuilt_from_their_configuration():
    for layer in (StochasticDepth(0.1), ShakeDrop(0.2), PadChannels(9), Shifted(1, 2), ShakeShake()):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_squeeze_and_excitation_is_the_formula():
    """Hu et al. 2018, equations 2 to 4: x times sigmoid(W2 relu(W1 mean(x)))."""
    inputs = keras.Input([4, 5, 6])
    model = keras.Model(inputs, excite(KerasBuilder(TINY["se_resnet"], 0), inputs, 3, "block_"))
    generator = np.random.default_rng(1)
    model.set_weights([generator.standard_normal(w.shape).astype(np.float32) for w in model.get_weights()])
    x = generator.standard_normal([2, 4, 5, 6]).astype(np.float32)
    w1, b1, w2, b2 = (w.reshape(w.shape[-2:]) if w.ndim == 4 else w for w in model.get_weights())
    hidden = np.maximum(x.mean(axis=(1, 2)) @ w1 + b1, 0)
    gate = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    np.testing.assert_allclose(model(x), x * gate[:, None, None, :], rtol=1e-5, atol=1e-6)
