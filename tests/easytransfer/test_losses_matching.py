"""Matching losses against loops written from their definitions, PyTorch, and numeric gradients."""

import numpy as np
import pytest
import tensorflow as tf

import easytransfer.losses as old_names
from easytransfer.losses import matching

RNG = np.random.default_rng(0)
ROWS, SIZE = 7, 5
FIRST = RNG.normal(size=(ROWS, SIZE)).astype(np.float32)
SECOND = (FIRST + RNG.normal(size=(ROWS, SIZE))).astype(np.float32)
# Rows 0 and 3 have one second text; rows 1 and 4 one first text; row 5 pairs what row 2 asks; row 6 only fills.
IDS_A = np.array([10, 11, 12, 13, 11, 30, 10])
IDS_B = np.array([20, 21, 22, 20, 24, 12, 20])
MATCHES = np.array([True, True, True, True, True, False, True])
WEIGHT = np.array([1, 1, 1, 1, 0.5, 1, 0], np.float32)


def negatives_by_hand(ids_a, ids_b, matches, weight):
    """Pair by pair, from the words of the docstring."""
    rows = range(len(ids_a))
    known = {(ids_a[k], ids_b[k]) for k in rows if matches[k] and weight[k] > 0}
    found = np.zeros((len(ids_a), len(ids_a)), bool)
    for i in rows:
        for j in rows:
            anchor = matches[i] and weight[i] > 0
            found[i, j] = anchor and weight[j] > 0 and (ids_a[i], ids_b[j]) not in known and ids_a[i] != ids_b[j]
    return found


def cosines(first, second):
    first, second = first.astype(np.float64), second.astype(np.float64)
    length = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    return first @ second.T / length


def margin_by_hand(s, matches, negatives, weight, margin, threshold):
    total = 0.0
    for i in range(len(s)):
        if matches[i]:
            terms = [max(0.0, margin - s[i, i] + s[i, j]) for j in range(len(s)) if negatives[i, j]]
            total += weight[i] * sum(terms) / (len(terms) + 1)
        else:
            total += weight[i] * max(0.0, margin - threshold + s[i, i])
    return total


def softmax_by_hand(s, matches, negatives, reverse, weight, scale, threshold):
    def one_way(s, negatives, i):
        others = [np.exp(scale * s[i, j]) for j in range(len(s)) if negatives[i, j]]
        return -np.log(np.exp(scale * s[i, i]) / (np.exp(scale * s[i, i]) + sum(others)))

    total = 0.0
    for i in range(len(s)):
        if matches[i]:
            total += weight[i] * (one_way(s, negatives, i) + one_way(s.T, reverse, i)) / 2
        else:
            total += weight[i] * np.log1p(np.exp(scale * (s[i, i] - threshold)))
    return total


def masks(weight=WEIGHT, matches=MATCHES):
    forward = matching.in_batch_negatives(IDS_A, IDS_B, matches, weight)
    return forward, matching.in_batch_negatives(IDS_B, IDS_A, matches, weight)


def test_negatives_leave_out_matches_duplicates_the_text_itself_and_fillers():
    forward, reverse = masks()
    np.testing.assert_array_equal(forward, negatives_by_hand(IDS_A, IDS_B, MATCHES, WEIGHT))
    np.testing.assert_array_equal(reverse, negatives_by_hand(IDS_B, IDS_A, MATCHES, WEIGHT))
    forward = forward.numpy()
    assert not forward[0, 3] and not forward[3, 0], "two rows with one second text"
    assert not forward[1, 4] and not forward[4, 1], "two matches of one first text"
    assert not forward[2, 5], "the candidate is the text itself"
    assert not forward[5].any(), "a pair that does not match is no anchor"
    assert not forward[6].any() and not forward[:, 6].any(), "a filler takes no part"
    assert forward[1, 5] and forward[0, 1]


def test_text_ids_are_equal_for_equal_tokens_of_either_side():
    first = np.array([[1, 5, 2, 0], [1, 6, 2, 0], [1, 5, 2, 0]])
    second = np.array([[1, 6, 2, 0, 0, 0], [1, 6, 7, 8, 9, 2], [1, 5, 2, 0, 0, 0]])
    a, b = (side.numpy().tolist() for side in matching.text_ids(first, second))
    assert a[0] == a[2] == b[2] and a[1] == b[0] and len({a[0], a[1], b[1]}) == 3


def test_random_negatives_agree_with_the_loop():
    for _ in range(20):
        a, b = RNG.integers(0, 4, (2, 9))
        matches, weight = RNG.random(9) < 0.6, (RNG.random(9) < 0.8).astype(np.float32)
        found = matching.in_batch_negatives(a, b, matches, weight)
        np.testing.assert_array_equal(found, negatives_by_hand(a, b, matches, weight))


@pytest.mark.parametrize(("margin", "threshold"), [(0.3, 0.5), (0.8, -0.2)])
def test_margin_sum(margin, threshold):
    forward, _ = masks()
    found = matching.margin_sum(FIRST, SECOND, MATCHES, forward, WEIGHT, margin=margin, threshold=threshold)
    expected = margin_by_hand(cosines(FIRST, SECOND), MATCHES, forward.numpy(), WEIGHT, margin, threshold)
    assert found.dtype == tf.float32 and expected > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_softmax_sum(scale):
    forward, reverse = masks()
    found = matching.softmax_sum(FIRST, SECOND, MATCHES, forward, reverse, WEIGHT, scale=scale, threshold=0.4)
    s = cosines(FIRST, SECOND)
    expected = softmax_by_hand(s, MATCHES, forward.numpy(), reverse.numpy(), WEIGHT, scale, 0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_softmax_sum_of_matches_is_cross_entropy_in_torch():
    torch = pytest.importorskip("torch")
    everything, others = np.ones(ROWS, bool), ~np.eye(ROWS, dtype=bool)
    found = matching.softmax_sum(FIRST, SECOND, everything, others, others, np.ones(ROWS), scale=20.0)
    logits = 20 * torch.tensor(cosines(FIRST, SECOND))
    entropy = torch.nn.functional.cross_entropy
    target = torch.arange(ROWS)
    expected = (entropy(logits, target, reduction="sum") + entropy(logits.T, target, reduction="sum")) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fillers_change_neither_loss():
    real = slice(0, 6)
    for loss in ("margin", "softmax"):
        found = []
        for rows in (slice(None), real):
            forward, reverse = (m[rows, rows] for m in masks())
            arguments = (FIRST[rows], SECOND[rows], MATCHES[rows], forward)
            arguments += (reverse,) if loss == "softmax" else ()
            found.append(float(getattr(matching, f"{loss}_sum")(*arguments, WEIGHT[rows])))
        assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_original_name_is_the_mean_over_all_pairs_with_a_zero_diagonal():
    s = cosines(FIRST, SECOND)
    hinge = np.maximum(0, 0.3 - np.diag(s)[:, None] + s) * (1 - np.eye(ROWS))
    np.testing.assert_allclose(old_names.matching_embedding_margin_loss(FIRST, SECOND), hinge.mean(), rtol=1e-5)


def test_a_zero_vector_has_cosine_zero_and_a_finite_gradient():
    first = tf.Variable(np.zeros((2, SIZE), np.float32))
    with tf.GradientTape() as tape:
        value = matching.cosine(first, SECOND[:2])
    np.testing.assert_array_equal(value, [0, 0])
    assert np.isfinite(tape.gradient(value, first)).all()
    np.testing.assert_allclose(matching.cosine(FIRST, SECOND), np.diag(cosines(FIRST, SECOND)), rtol=1e-5)


@pytest.mark.parametrize("loss", ["margin", "softmax"])
def test_gradients_against_differences(loss):
    forward, reverse = (mask.numpy() for mask in masks())
    # A scale without kinks nearby: float64 differences of the definition against float32 gradients of the code.
    s_of = {
        "margin": lambda s: margin_by_hand(s, MATCHES, forward, WEIGHT, 0.3, 0.5),
        "softmax": lambda s: softmax_by_hand(s, MATCHES, forward, reverse, WEIGHT, 5.0, 0.5),
    }[loss]
    first, second = tf.Variable(FIRST), tf.Variable(SECOND)
    with tf.GradientTape() as tape:
        if loss == "margin":
            value = matching.margin_sum(first, second, MATCHES, forward, WEIGHT)
        else:
            value = matching.softmax_sum(first, second, MATCHES, forward, reverse, WEIGHT, scale=5.0)
    found = tape.gradient(value, [first, second])
    step = 1e-6
    for side, gradient in enumerate(found):
        expected = np.zeros((ROWS, SIZE))
        for place in np.ndindex(ROWS, SIZE):
            values = []
            for sign in (1, -1):
                moved = [FIRST.astype(np.float64), SECOND.astype(np.float64)]
                moved[side][place] += sign * step
                values.append(s_of(cosines(*moved)))
            expected[place] = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradient, expected, atol=2e-5)
