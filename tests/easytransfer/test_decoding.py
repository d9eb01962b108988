"""Texts written id by id: greedy, beams and draws against searches written out in NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.text.decoding import Decoding, written

IDS, END, START = 6, 1, 0


class Table:
    """Logits of the next id by the two ids before, for texts that differ; the cache holds the id before the last."""

    def __init__(self, seed, rows):
        self.logits = np.random.default_rng(seed).normal(0, 2, (rows, IDS, IDS, IDS)).astype(np.float32)

    def start(self, beams=1):
        rows = np.repeat(np.arange(len(self.logits)), beams)
        return [tf.constant(rows, tf.int32), tf.zeros([len(rows), 0], tf.int32)]

    def __call__(self, last, place, cache):
        row, before = cache
        second = before[:, -1] if before.shape[1] else tf.zeros_like(last)
        return tf.gather_nd(self.logits, tf.stack([row, second, last], 1)), [row, tf.concat([before, last[:, None]], 1)]

    def log_probabilities(self, row, text):
        last, second, found = START, 0, []
        for chosen in text:
            logits = self.logits[row, second, last].astype(np.float64)
            found.append((logits - np.log(np.exp(logits).sum()))[chosen])
            second, last = last, chosen
        return found


def whole_texts(most):
    """All texts of ids 0 to 5 that end with 1 or have the most ids."""
    for length in range(1, most + 1):
        for text in itertools.product(range(IDS), repeat=length):
            if END not in text[:-1] and (text[-1] == END or length == most):
                yield text


def padded(text, most):
    return [*text, *[0] * (most - len(text))]


def test_greedy_takes_the_most_probable_id_at_every_place():
    table, most = Table(1, 5), 6
    found = written(table, table.start(), 5, Decoding(most, START, END)).numpy()
    for row in range(5):
        text, last, second = [], START, 0
        while len(text) < most and END not in text:
            chosen = int(table.logits[row, second, last].argmax())
            text, second, last = [*text, chosen], last, chosen
        assert found[row].tolist() == padded(text, most)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_wide_beams_find_the_best_text_of_all(penalty):
    table, most = Table(2, 4), 4
    beams = IDS ** (most - 1)
    found = written(table, table.start(beams), 4, Decoding(most, START, END, beams, penalty)).numpy()
    for row in range(4):
        best = max(whole_texts(most), key=lambda t: sum(table.log_probabilities(row, t)) / len(t) ** penalty)
        assert found[row].tolist() == padded(best, most)


@pytest.mark.parametrize("beams", [2, 3])
def test_beams_are_followed_as_defined(beams):
    """The definition, one row at a time with lists in place of tensors."""
    table, most, rows = Table(3, 20), 7, 20
    found = written(table, table.start(beams), rows, Decoding(most, START, END, beams)).numpy()
    differ = 0
    for row in range(rows):
        followed, kept = [((), 0.0)], []
        for place in range(most):
            longer = [((*text, chosen), None) for text, _ in followed for chosen in range(IDS)]
            scored = [(text, sum(table.log_probabilities(row, text))) for text, _ in longer]
            scored = sorted(scored, key=lambda pair: -pair[1])[: 2 * beams]
            ends = [pair for pair in scored[:beams] if pair[0][-1] == END or place == most - 1]
            kept = sorted([*kept, *((t, s / len(t)) for t, s in ends)], key=lambda pair: -pair[1])[:beams]
            followed = [pair for pair in scored if pair[0][-1] != END][:beams]
            if len(kept) == beams and followed[0][1] / (place + 1) <= kept[-1][1]:
                break
        assert found[row].tolist() == padded(kept[0][0], most)
        greedy = written(table, table.start(), rows, Decoding(most, START, END)).numpy()[row]
        differ += found[row].tolist() != greedy.tolist()
    assert differ > 0


def draws(**settings):
    """Shares of the first id over many texts with the same logits."""
    rows = 20_000
    logits = tf.constant([[2.0, 1.0, 0.0, -1.0, 1.5, 0.5]])

    def next_logits(last, place, cache):
        return tf.repeat(logits, rows, 0), cache

    how = Decoding(1, START, END, is_drawn=True, **settings)
    found = written(next_logits, tf.zeros([rows, 0]), rows, how).numpy()[:, 0]
    return np.bincount(found, minlength=IDS) / rows, logits.numpy()[0].astype(np.float64)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, range(6)),
        ({"temperature": 0.5}, range(6)),
        ({"top_k": 2}, [0, 4]),
        # Shares 0.425, 0.258, 0.156, 0.095, ...: the first two have less than 0.7, with the third it is exceeded.
        ({"top_p": 0.7}, [0, 4, 1]),
        ({"top_k": 100, "top_p": 1.0}, range(6)),
    ],
)
def test_ids_are_drawn_by_their_shares(settings, kept):
    found, logits = draws(**settings)
    shares = np.exp(logits / settings.get("temperature", 1.0))
    expected = np.where(np.isin(np.arange(IDS), list(kept)), shares, 0)
    expected /= expected.sum()
    np.testing.assert_allclose(found, expected, atol=0.015)
    assert (found[expected == 0] == 0).all()


def test_a_seed_repeats_its_draws_and_places_differ():
    logits = tf.zeros([200, IDS])
    how = {"most": 3, "start": START, "end": 5, "is_drawn": True}
    a, again, b = (
        written(lambda *args: (logits, args[2]), tf.zeros([200, 0]), 200, Decoding(**how, seed=seed)).numpy()
        for seed in (1, 1, 2)
    )
    assert (a == again).all() and (a != b).any()
    assert (a[:, 0] != a[:, 1]).any()


def test_a_graph_takes_any_number_of_texts():
    table = Table(4, 3)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def write(rows):
        def next_logits(last, place, cache):
            return tf.gather(table.logits[:, 0, 0], rows), [tf.concat([cache[0], last[:, None]], 1)]

        cache = [tf.zeros([tf.size(rows), 0], tf.int32)]
        return written(next_logits, cache, tf.size(rows), Decoding(3, START, END))

    for rows in ([2], [0, 1, 2, 2]):
        first = table.logits[rows, 0, 0].argmax(-1)
        expected = [padded([n] if n == END else [n] * 3, 3) for n in first]
        assert write(np.array(rows)).numpy().tolist() == expected
