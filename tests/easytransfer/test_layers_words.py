"""Each network on words against its formula in plain NumPy, one row at a time, and that padding is nothing."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from easytransfer import keras, layers
from easytransfer.layers.bicnn import BiCNNEncoder
from easytransfer.layers.dam import DAMEncoder, masked_softmax
from easytransfer.layers.hcnn import HybridCNNEncoder
from easytransfer.layers.text_cnn import TextCNNEncoder

SIZE, HIDDEN = 5, 6
FIRST, SECOND = (7, 1, 3, 0), (2, 5, 1, 4)


def texts(lengths, width, seed):
    """Random word vectors [rows, width, SIZE] with rubbish behind each text's end, and the mask."""
    random = np.random.default_rng(seed)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    return random.normal(size=(len(lengths), width, SIZE)).astype(np.float32), mask


def pair(width_a=7, width_b=5):
    (a, mask_a), (b, mask_b) = texts(FIRST, width_a, 1), texts(SECOND, width_b, 2)
    return [a, b, mask_a, mask_b]


def wider(vectors, mask, more):
    """The same texts with `more` positions of rubbish."""
    rubbish = np.random.default_rng(9).normal(size=(len(mask), more, SIZE)).astype(np.float32)
    return np.concatenate([vectors, rubbish], axis=1), np.pad(mask, [(0, 0), (0, more)])


def randomized(layer, inputs):
    """Builds the layer and gives every variable, biases too, random values."""
    layer(inputs)
    random = np.random.default_rng(3)
    for variable in layer.weights:
        variable.assign(random.normal(size=variable.shape, scale=0.5))
    return layer


def relu(x):
    return np.maximum(x, 0)


def dense(layer, x):
    return relu(x @ layer.kernel.numpy() + layer.bias.numpy())


def window_sum(kernel, window):
    return np.einsum("wd,wdf->f", window, kernel)


# One row at a time, without batches, padding or masks: the texts have their true length ------------------------


def textcnn_row(layer, words):
    features = []
    for convolution, size in zip(layer.convolutions, layer.filter_sizes, strict=True):
        kernel, bias = convolution.kernel.numpy(), convolution.bias.numpy()
        long = np.concatenate([words, np.zeros((max(0, size - len(words)), SIZE))])
        answers = [relu(window_sum(kernel, long[at : at + size]) + bias) for at in range(max(1, len(words) - size + 1))]
        features.append(np.max(answers, axis=0))
    return np.concatenate(features)


def bicnn_row(layer, a, b):
    def side(words):
        mean = words.mean(axis=0) if len(words) else np.zeros(SIZE)
        return np.concatenate([textcnn_row(layer.convolutions, words), mean])

    left, right = side(a), side(b)
    return np.concatenate([left, right, left - right, left * right])


def dam_row(layer, a, b):
    a, b = dense(layer.projection, a), dense(layer.projection, b)
    scores = dense(layer.attend, a) @ dense(layer.attend, b).T

    def aligned(rows, other):
        if not rows.size:
            return np.zeros((len(rows), layer.hidden_size))
        weights = np.exp(rows - rows.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True) @ other

    left = dense(layer.compare, np.concatenate([a, aligned(scores, b)], axis=1))
    right = dense(layer.compare, np.concatenate([b, aligned(scores.T, a)], axis=1))
    maxima = [side.max(axis=0) if len(side) else np.zeros(layer.hidden_size) for side in (left, right)]
    return np.concatenate([left.sum(axis=0), right.sum(axis=0), *maxima])


def convolve_picture(picture, convolution, stride, pad):
    """2-D convolution with tanh over [height, width, channels], `pad` zeros before and behind."""
    kernel, bias = convolution.kernel.numpy(), convolution.bias.numpy()
    picture = np.pad(picture, [pad, pad, (0, 0)])
    height, width = ((side - kernel.shape[0]) // stride + 1 for side in picture.shape[:2])
    out = np.zeros((height, width, kernel.shape[3]))
    for y, x in itertools.product(range(height), range(width)):
        part = picture[y * stride : y * stride + kernel.shape[0], x * stride : x * stride + kernel.shape[1]]
        out[y, x] = np.tanh(np.einsum("hwc,hwcf->f", part, kernel) + bias)
    return out


def pool(picture, size):
    height, width = (side // size for side in picture.shape[:2])
    cut = picture[: height * size, : width * size]
    return cut.reshape(height, size, width, size, -1).max(axis=(1, 3))


def hcnn_row(layer, a, b):
    kernel, bias, more = layer.wide.kernel.numpy(), layer.wide.bias.numpy(), layer.filter_size - 1

    def side(words):
        if not len(words):
            return np.zeros(layer.num_filters)
        long = np.pad(words, [(more, more), (0, 0)])
        return np.max(
            [np.tanh(window_sum(kernel, long[at : at + more + 1]) + bias) for at in range(len(words) + more)], axis=0
        )

    left, right = side(a), side(b)
    picture = np.zeros([max(length, 28) for length in layer.max_lengths])
    products = (a @ b.T)[: layer.max_lengths[0], : layer.max_lengths[1]]
    picture[: products.shape[0], : products.shape[1]] = products
    # SAME padding of an even kernel: one more behind than before.
    picture = pool(convolve_picture(picture[..., None], layer.pyramid[0], 1, (2, 3)), 4)
    picture = pool(convolve_picture(picture, layer.pyramid[1], 3, (0, 0)), 2)
    return np.concatenate([picture.reshape(-1), left, right, left - right, left * right])


PAIR_LAYERS = {
    "bicnn": (lambda: BiCNNEncoder(HIDDEN), bicnn_row),
    "dam": (lambda: DAMEncoder(HIDDEN), dam_row),
    "hcnn": (lambda: HybridCNNEncoder(HIDDEN, 4, (32, 60)), hcnn_row),
    "hcnn_short": (lambda: HybridCNNEncoder(HIDDEN, 3, (6, 4)), hcnn_row),
}


def expected_pairs(row_function, layer, inputs):
    a, b, mask_a, mask_b = inputs
    rows = zip(a, b, mask_a.sum(1), mask_b.sum(1), strict=True)
    return np.stack([row_function(layer, x[:m].astype(float), y[:n].astype(float)) for x, y, m, n in rows])


@pytest.mark.parametrize("name", PAIR_LAYERS)
def test_pair_networks_against_numpy(name):
    make, row_function = PAIR_LAYERS[name]
    inputs = pair()
    layer = randomized(make(), inputs)
    np.testing.assert_allclose(layer(inputs), expected_pairs(row_function, layer, inputs), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", PAIR_LAYERS)
def test_padding_changes_no_pair(name):
    a, b, mask_a, mask_b = inputs = pair()
    layer = randomized(PAIR_LAYERS[name][0](), inputs)
    more_a, more_mask_a = wider(a, mask_a, 9)
    more_b, more_mask_b = wider(b, mask_b, 4)
    found = layer([more_a, more_b, more_mask_a, more_mask_b])
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 1), (9,)])
def test_textcnn_against_numpy(sizes):
    vectors, mask = texts(FIRST, 7, 4)
    layer = randomized(TextCNNEncoder(range(2, 2 + len(sizes)), sizes), [vectors, mask])
    expected = [textcnn_row(layer, row[:length].astype(float)) for row, length in zip(vectors, FIRST, strict=True)]
    np.testing.assert_allclose(layer([vectors, mask]), np.stack(expected), rtol=2e-5, atol=2e-5)


def test_original_textcnn_ignored_masks():
    vectors, mask = texts(FIRST, 7, 4)
    layer = randomized(TextCNNEncoder([4, 4], [2, 3]), [vectors, mask])
    np.testing.assert_allclose(layer([*wider(vectors, mask, 6)]), layer([vectors, mask]), rtol=1e-5, atol=1e-6)
    rubbish = np.where(mask[..., None] == 1, vectors, 1e3).astype(np.float32)
    np.testing.assert_allclose(layer([rubbish, mask]), layer([vectors, mask]), rtol=1e-5, atol=1e-6)


def test_original_bicnn_summed_the_wrong_axis():
    inputs = a, b, mask_a, mask_b = pair()
    layer = randomized(BiCNNEncoder(HIDDEN), inputs)
    side = 3 * HIDDEN + SIZE
    features = layer(inputs).numpy()
    # The original appended one number per position, so the features grew with the padding.
    assert features.shape == (4, 4 * side)
    means = [row[:length].mean(axis=0) if length else np.zeros(SIZE) for row, length in zip(a, FIRST, strict=True)]
    np.testing.assert_allclose(features[:, 3 * HIDDEN : side], means, rtol=1e-5, atol=1e-6)


def test_original_bicnn_ignored_masks():
    inputs = a, b, mask_a, mask_b = pair()
    layer = randomized(BiCNNEncoder(HIDDEN), inputs)
    rubbish = [np.where(mask[..., None] == 1, x, -7.0).astype(np.float32) for x, mask in ((a, mask_a), (b, mask_b))]
    np.testing.assert_allclose(layer([*rubbish, mask_a, mask_b]), layer(inputs), rtol=1e-5, atol=1e-6)


def test_original_hcnn_reshape_divided_to_a_fraction():
    inputs = pair()
    for lengths, pyramid in (((64, 64), 2 * 2 * 16), ((28, 28), 16), ((4, 70), 2 * 16)):
        features = HybridCNNEncoder(HIDDEN, 4, lengths)(inputs)
        assert features.shape == (4, pyramid + 4 * HIDDEN)


def test_hcnn_words_behind_its_lengths_are_not_in_the_picture_and_do_no_harm():
    inputs = pair()
    layer = randomized(HybridCNNEncoder(HIDDEN, 4, (30, 2)), inputs)
    np.testing.assert_allclose(layer(inputs), expected_pairs(hcnn_row, layer, inputs), rtol=2e-5, atol=2e-5)


def test_hcnn_penalty_is_half_the_squares_of_the_kernels_without_biases():
    layer = randomized(HybridCNNEncoder(HIDDEN), pair())
    kernels = [weight.numpy() for weight in layer.weights if weight.name.split("/")[-1].startswith("kernel")]
    assert len(kernels) == 3
    np.testing.assert_allclose(layer.l2_penalty(), sum((kernel**2).sum() for kernel in kernels) / 2, rtol=1e-5)


def test_masked_softmax_of_nothing_is_zero_and_of_large_scores_finite():
    scores = tf.constant([[1e4, 9e3, -1e4], [5.0, 5.0, 5.0]])
    found = masked_softmax(scores, tf.constant([[1, 0, 1], [0, 0, 0]])).numpy()
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("name", [*PAIR_LAYERS, "textcnn"])
def test_half_precision_gradients_and_configuration(name):
    inputs = pair()[::2] if name == "textcnn" else pair()
    make = PAIR_LAYERS[name][0] if name in PAIR_LAYERS else lambda: TextCNNEncoder([2, 3], [2, 4])
    layer = make()
    copy = type(layer).from_config(layer.get_config())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs, training=True))
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, layer.trainable_variables))
    copy(inputs)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(inputs), layer(inputs))
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = make()
        half(inputs)
        half.set_weights(layer.get_weights())
        found = half(inputs)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assert found.dtype == tf.float16
    np.testing.assert_allclose(tf.cast(found, tf.float32), layer(inputs), rtol=0.05, atol=0.05)


def test_layers_have_the_names_of_the_original():
    found = (layers.TextCNNEncoder, layers.BiCNNEncoder, layers.HybridCNNEncoder, layers.DAMEncoder)
    assert found == (TextCNNEncoder, BiCNNEncoder, HybridCNNEncoder, DAMEncoder)


@pytest.mark.parametrize(("filters", "sizes"), [([1, 2], [3]), ([], []), ([0], [3]), ([2], [0])])
def test_filters_that_do_not_fit_are_refused(filters, sizes):
    with pytest.raises(ValueError, match="do not fit"):
        TextCNNEncoder(filters, sizes)


@pytest.mark.parametrize("name", [*PAIR_LAYERS, "textcnn"])
def test_an_empty_batch_has_no_answers(name):
    inputs = pair()[::2] if name == "textcnn" else pair()
    layer = TextCNNEncoder([2, 3], [2, 4]) if name == "textcnn" else PAIR_LAYERS[name][0]()
    features = layer(inputs).shape[1]
    for call in (layer, tf.function(lambda x: layer(x))):
        assert call([tf.constant(value[:0]) for value in inputs]).shape == (0, features)
