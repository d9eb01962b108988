"""The linear-chain CRF against sums and maxima over all sequences, and numeric gradients."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from appzoo.labeling.crf import LinearChainCRF, log_likelihood, log_marginals, viterbi

RNG = np.random.default_rng(0)
TAGS, WORDS = 3, 5
EMISSIONS = RNG.normal(size=(4, WORDS, TAGS)).astype(np.float32) * 2
TRANSITIONS = RNG.normal(size=(TAGS, TAGS)).astype(np.float32)
LENGTHS = np.array([5, 3, 1, 0])
GOLD = RNG.integers(0, TAGS, (4, WORDS))


def score(emissions, tags):
    total = sum(float(emissions[t, y]) for t, y in enumerate(tags))
    return total + sum(float(TRANSITIONS[a, b]) for a, b in itertools.pairwise(tags))


def all_scores(row):
    """Scores of every sequence of a row by tags, by enumeration."""
    length = LENGTHS[row]
    return {tags: score(EMISSIONS[row], tags) for tags in itertools.product(range(TAGS), repeat=int(length))}


def log_sum(values):
    return float(np.logaddexp.reduce(list(values)))


def test_log_likelihood_against_enumeration():
    found = log_likelihood(EMISSIONS, GOLD, LENGTHS, TRANSITIONS)
    for row, length in enumerate(LENGTHS):
        scores = all_scores(row)
        expected = scores[tuple(GOLD[row, :length])] - log_sum(scores.values())
        assert float(found[row]) == pytest.approx(expected, abs=1e-5)


def test_viterbi_against_enumeration():
    found = viterbi(EMISSIONS, LENGTHS, TRANSITIONS).numpy()
    for row, length in enumerate(LENGTHS):
        scores = all_scores(row)
        assert tuple(found[row, :length]) == max(scores, key=scores.__getitem__)
        assert not found[row, length:].any()


def test_marginals_against_enumeration():
    found = log_marginals(EMISSIONS, LENGTHS, TRANSITIONS).numpy()
    for row, length in enumerate(LENGTHS):
        scores = all_scores(row)
        for word, tag in itertools.product(range(length), range(TAGS)):
            chosen = log_sum(value for tags, value in scores.items() if tags[word] == tag)
            assert found[row, word, tag] == pytest.approx(chosen - log_sum(scores.values()), abs=1e-5)


def test_padding_and_what_is_behind_the_end_do_not_matter():
    longer = np.pad(EMISSIONS, [(0, 0), (0, 4), (0, 0)], constant_values=1e3)
    gold = np.pad(GOLD, [(0, 0), (0, 4)], constant_values=-1)
    np.testing.assert_allclose(
        log_likelihood(longer, gold, LENGTHS, TRANSITIONS), log_likelihood(EMISSIONS, GOLD, LENGTHS, TRANSITIONS), 1e-5
    )
    np.testing.assert_array_equal(
        viterbi(longer, LENGTHS, TRANSITIONS)[:, :WORDS], viterbi(EMISSIONS, LENGTHS, TRANSITIONS)
    )


def test_gradients_against_differences_of_the_enumerated_likelihood():
    """d log p / d A[i, j] is the count of i, j in the tags minus its expectation."""
    crf = LinearChainCRF(TAGS)
    crf.build([None, None, TAGS])
    crf.set_weights([TRANSITIONS])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(crf.log_likelihood(EMISSIONS, GOLD, LENGTHS))
    (found,) = tape.gradient(total, crf.trainable_variables)
    expected = np.zeros((TAGS, TAGS))
    for row, length in enumerate(LENGTHS):
        scores = all_scores(row)
        norm = log_sum(scores.values())
        for tags, value in [*scores.items(), (tuple(GOLD[row, :length]), None)]:
            for pair in itertools.pairwise(tags):
                expected[pair] += 1 if value is None else -np.exp(value - norm)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("words", [1, 4])
def test_decoding_inside_a_saved_graph_with_open_shapes(tmp_path, words):
    crf = LinearChainCRF(TAGS, rate_factor=10.0)
    expected = crf(EMISSIONS[:, :words], np.minimum(LENGTHS, words))
    crf.set_weights([TRANSITIONS / 10])
    specs = [tf.TensorSpec([None, None, TAGS]), tf.TensorSpec([None], tf.int64)]
    module = tf.Module()
    module.crf, module.call = crf, tf.function(crf.call, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    lengths = tf.constant(np.minimum(LENGTHS, words))
    found = loaded.call(tf.constant(EMISSIONS[:, :words]), lengths)
    np.testing.assert_array_equal(found["tags"], viterbi(EMISSIONS[:, :words], lengths, TRANSITIONS))
    assert found["log_probabilities"].shape == expected["log_probabilities"].shape
    empty = loaded.call(tf.zeros([0, words, TAGS]), tf.zeros([0], tf.int64))
    assert empty["tags"].shape == (0, words)


def test_layer_survives_its_config():
    crf = LinearChainCRF.from_config(LinearChainCRF(4, 7.0).get_config())
    assert (crf.tags, crf.rate_factor) == (4, 7.0)
