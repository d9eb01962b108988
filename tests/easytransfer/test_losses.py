"""Losses against NumPy formulas written from their definitions, PyTorch, and numeric gradients."""

import numpy as np
import pytest
import tensorflow as tf

import easytransfer.losses as old_names
from easytransfer.losses import classification as losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 3, 1, 1, 2, 0])
MULTI_HOT = (RNG.random((6, 4)) < 0.4).astype(np.float32)
WEIGHT = np.array([1, 1, 0, 1, 1, 0.5], np.float32)
CLASS_WEIGHTS = np.array([0.5, 1, 2, 4], np.float32)


def cross_entropy(labels, logits, weight, class_weights=None, smoothing=0.0):
    """Straight from the definition, in float64."""
    logits = logits.astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = 0.0
    for y, p, w in zip(labels, probabilities, weight, strict=True):
        target = np.full(len(p), smoothing / len(p))
        target[y] += 1 - smoothing
        total += w * (1 if class_weights is None else class_weights[y]) * -(target * np.log(p)).sum()
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
def test_softmax_cross_entropy_sum(smoothing, class_weights):
    expected = cross_entropy(LABELS, LOGITS, WEIGHT, class_weights, smoothing)
    found = losses.softmax_cross_entropy_sum(LABELS, LOGITS, WEIGHT, class_weights, smoothing)
    assert found.dtype == tf.float32 and found.shape == ()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    column = losses.softmax_cross_entropy_sum(LABELS[:, None], LOGITS, WEIGHT, class_weights, smoothing)
    np.testing.assert_allclose(column, expected, rtol=1e-6)


def test_softmax_cross_entropy_agrees_with_torch():
    torch = pytest.importorskip("torch")
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    for smoothing in (0.0, 0.2):
        expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        found = losses.softmax_cross_entropy_sum(LABELS, LOGITS, np.ones(6), None, smoothing)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The usual weighted mean: the sum divided by the weights of the labels.
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor(CLASS_WEIGHTS))
    found = losses.softmax_cross_entropy_sum(LABELS, LOGITS, np.ones(6), CLASS_WEIGHTS) / CLASS_WEIGHTS[LABELS].sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
def test_sigmoid_cross_entropy_sum(smoothing, class_weights):
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    target = MULTI_HOT * (1 - smoothing) + smoothing / 2
    terms = -(target * np.log(p) + (1 - target) * np.log(1 - p)) * (1 if class_weights is None else class_weights)
    expected = (terms.mean(-1) * WEIGHT).sum()
    found = losses.sigmoid_cross_entropy_sum(MULTI_HOT, LOGITS, WEIGHT, class_weights, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("shapes", [((6,), (6,)), ((6, 1), (6,)), ((6,), (6, 1)), ((6, 1), (6, 1))])
def test_squared_error_pairs_each_row_with_itself(shapes):
    """[6] minus [6, 1] would broadcast to 36 pairs."""
    labels, values = LABELS.astype(np.float32), LOGITS[:, 0]
    found = losses.squared_error_sum(labels.reshape(shapes[0]), values.reshape(shapes[1]), WEIGHT)
    np.testing.assert_allclose(found, (WEIGHT * (labels - values) ** 2).sum(), rtol=1e-6)


def each_loss():
    values = LOGITS[:, :1]
    yield "softmax", LOGITS, lambda x: losses.softmax_cross_entropy_sum(LABELS, x, WEIGHT, CLASS_WEIGHTS, 0.1)
    yield "sigmoid", LOGITS, lambda x: losses.sigmoid_cross_entropy_sum(MULTI_HOT, x, WEIGHT, CLASS_WEIGHTS, 0.1)
    yield "squared", values, lambda x: losses.squared_error_sum(LABELS, x, WEIGHT)
    yield (
        "mlm",
        LOGITS,
        lambda x: old_names.masked_language_model_loss(x, LABELS.reshape(2, 3), WEIGHT.reshape(2, 3), 4),
    )


@pytest.mark.parametrize(("name", "logits", "loss"), list(each_loss()), ids=lambda x: x if isinstance(x, str) else "")
def test_gradients_agree_with_differences(name, logits, loss):
    (analytic,), (numeric,) = tf.test.compute_gradient(loss, [tf.constant(logits)], delta=1e-2)
    np.testing.assert_allclose(analytic, numeric, atol=5e-3)
    assert np.abs(analytic).max() > 0.01
    np.testing.assert_allclose(analytic.reshape(logits.shape)[2], 0, atol=1e-7)  # weight 0: the row does not count


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("large", [1e4, 6e4])
def test_large_logits_give_finite_losses_and_gradients(dtype, large):
    logits = tf.constant(np.array([[large, -large], [-large, large]], dtype))
    hot = np.array([[0, 1], [0, 1]], np.float32)
    for loss, expected in (
        (lambda x: losses.softmax_cross_entropy_sum([1, 1], x, [1, 1], label_smoothing=0.1), 2 * large),
        (lambda x: losses.sigmoid_cross_entropy_sum(hot, x, [1, 1]), large),
        (lambda x: losses.squared_error_sum([0, 0], x[:, :1], [1, 1]), 2 * large**2),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(logits)
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, expected, rtol=2e-2 if dtype == np.float16 else 1e-5)
        if dtype == np.float32 or expected <= 2 * large:  # 2 * 60,000 does not exist in float16
            assert np.isfinite(tape.gradient(value, logits)).all()


def test_float16_rows_are_summed_in_float32():
    """A thousand losses of 100 overflow float16, whose largest number is 65504."""
    logits = tf.constant(np.tile([[100.0, 0.0]], (1000, 1)), tf.float16)
    found = losses.softmax_cross_entropy_sum(np.ones(1000, np.int32), logits, np.ones(1000, np.float16))
    np.testing.assert_allclose(found, 100_000, rtol=1e-6)


def test_sum_is_the_same_for_any_split():
    def loss(rows):
        return losses.softmax_cross_entropy_sum(LABELS[rows], LOGITS[rows], WEIGHT[rows], CLASS_WEIGHTS, 0.1).numpy()

    parts = sum(loss(slice(start, start + 2)) for start in (0, 2, 4))
    np.testing.assert_allclose(loss(slice(None)), parts, rtol=1e-6)


def test_losses_work_in_a_traced_and_a_compiled_step():
    for jit in (False, True):
        step = tf.function(lambda x: losses.softmax_cross_entropy_sum(LABELS, x, WEIGHT, None, 0.1), jit_compile=jit)
        np.testing.assert_allclose(step(LOGITS), cross_entropy(LABELS, LOGITS, WEIGHT, None, 0.1), rtol=1e-5)


# Names of the original ---------------------------------------------------------------------------------------


def test_original_softmax_cross_entropy():
    expected = cross_entropy(LABELS, LOGITS, np.ones(6)) / 6
    np.testing.assert_allclose(old_names.softmax_cross_entropy(LABELS, 4, LOGITS), expected, rtol=1e-6)
    np.testing.assert_allclose(old_names.softmax_cross_entropy(LABELS[:, None], 4, LOGITS), expected, rtol=1e-6)
    weighted = cross_entropy(LABELS, LOGITS, WEIGHT) / WEIGHT.sum()
    np.testing.assert_allclose(old_names.softmax_cross_entropy(LABELS, 4, LOGITS, WEIGHT), weighted, rtol=1e-6)


def test_original_softmax_cross_entropy_of_one_row():
    """The original squeezed the labels, which made a batch of one row lose its batch axis."""
    found = old_names.softmax_cross_entropy([[1]], 2, [[0.0, 0.0]])
    np.testing.assert_allclose(found, np.log(2), rtol=1e-6)


def test_original_mean_square_error():
    found = old_names.mean_square_error(np.array([1.0, 2.0]), np.array([[3.0], [5.0]]))
    np.testing.assert_allclose(found, (4 + 9) / 2)


def test_original_multi_label_loss_reads_padded_ids():
    ids = np.array([[0, 2, -1], [-1, -1, -1], [3, 3, 1]])
    hot = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]])
    p = 1 / (1 + np.exp(-LOGITS[:3].astype(np.float64)))
    expected = -(hot * np.log(p) + (1 - hot) * np.log(1 - p)).mean()
    np.testing.assert_allclose(old_names.multi_label_sigmoid_cross_entropy(ids, 4, LOGITS[:3]), expected, rtol=1e-6)


def test_original_pretraining_losses():
    ids, weight = LABELS.reshape(2, 3), WEIGHT.reshape(2, 3)
    expected = cross_entropy(LABELS, LOGITS, WEIGHT) / (WEIGHT.sum() + 1e-5)
    for logits in (LOGITS, LOGITS.reshape(2, 3, 4)):
        np.testing.assert_allclose(old_names.masked_language_model_loss(logits, ids, weight, 4), expected, rtol=1e-6)
    assert old_names.masked_language_model_loss(LOGITS, ids, np.zeros((2, 3)), 4) == 0
    two, labels = LOGITS[:, :2], LABELS % 2
    expected = cross_entropy(labels, two, np.ones(6)) / 6
    np.testing.assert_allclose(old_names.next_sentence_prediction_loss(two, labels[:, None]), expected, rtol=1e-6)


def test_wrong_depth_is_an_error():
    with pytest.raises(ValueError, match="logits have 4 classes, 5 were declared"):
        old_names.softmax_cross_entropy(LABELS, 5, LOGITS)
    with pytest.raises(AttributeError, match="no attribute 'hinge_loss'"):
        _ = old_names.hinge_loss
    assert set(old_names.__all__) <= set(dir(old_names))
