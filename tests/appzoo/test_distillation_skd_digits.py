"""Spherical distillation on scikit-learn's digits, with networks and SGD of the test's own: half a minute, so slow.

300 training images, 1,497 others, a student of 1,210 numbers, teachers of 563,722 and 8,970, five seeds at once.
"""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.distillation_skd import spherical
from easytransfer.losses.classification import softmax_cross_entropy_sum

datasets = pytest.importorskip("sklearn.datasets")
pytestmark = pytest.mark.slow

TRAINING, BATCH, EPOCHS, CLASSES, SEEDS = 300, 64, 100, 10, 5
# Epochs of warm-up, and those after which the rate falls to a tenth.
WARM_UP, DROPS = 5, (60, 85)
MOMENTUM, DECAY, ALPHA = 0.9, 5e-4, 0.9
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
STUDENT, LARGE, SMALL = [64, 16, 10], [64, 512, 512, 512, 10], [64, 64, 64, 10]


def forward(weights, x):
    """Logits [seeds, rows, classes] of dense layers with ReLU, one network per seed."""
    for i in range(0, len(weights), 2):
        x = x @ weights[i] + weights[i + 1]
        x = tf.nn.relu(x) if i + 2 < len(weights) else x
    return x


class Digits:
    """Trains networks of all seeds side by side."""

    def __init__(self):
        found = datasets.load_digits()
        order = np.random.default_rng(0).permutation(len(found.data))
        images, labels = (found.data[order] / 16).astype(np.float32), found.target[order].astype(np.int32)
        self.images, self.labels = tf.constant(images[:TRAINING]), tf.constant(labels[:TRAINING])
        self.others = images[TRAINING:], labels[TRAINING:]

    def train(self, sizes, loss, rate, clip=None, seeds=SEEDS):
        """Returns the weights and the accuracies [seeds] on the other images."""
        random = np.random.default_rng(100)
        shapes = [shape for a, b in zip(sizes, sizes[1:], strict=False) for shape in ((seeds, a, b), (seeds, 1, b))]
        limits = np.repeat([1 / np.sqrt(a) for a in sizes[:-1]], 2)
        starts = [random.uniform(-limit, limit, shape) for limit, shape in zip(limits, shapes, strict=True)]
        weights = [tf.Variable(start.astype(np.float32)) for start in starts]
        moments = [tf.Variable(tf.zeros_like(weight)) for weight in weights]

        @tf.function(reduce_retracing=True)
        def step(rows, rate):
            with tf.GradientTape() as tape:
                total = loss(forward(weights, tf.gather(self.images, rows)), rows)
            gradients = tape.gradient(total, weights)
            if clip is not None:
                norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g), [1, 2], keepdims=True) for g in gradients]))
                gradients = [g * clip / tf.maximum(norm, clip) for g in gradients]
            for weight, moment, gradient in zip(weights, moments, gradients, strict=True):
                moment.assign(MOMENTUM * moment + gradient + DECAY * weight)
                weight.assign_sub(rate * moment)

        for epoch in range(EPOCHS):
            now = rate * min(1, (epoch + 1) / WARM_UP) * 0.1 ** sum(epoch >= drop for drop in DROPS)
            order = np.stack([np.random.default_rng([seed, epoch]).permutation(TRAINING) for seed in range(seeds)])
            for start in range(0, TRAINING, BATCH):
                step(tf.constant(order[:, start : start + BATCH]), tf.constant(now, tf.float32))
        guessed = forward(weights, tf.constant(self.others[0])[None]).numpy().argmax(axis=-1)
        return weights, (guessed == self.others[1]).mean(axis=1)

    def plain(self, logits, rows):
        """Cross entropy, a mean over rows and a sum over seeds."""
        labels, flat = tf.reshape(tf.gather(self.labels, rows), [-1]), tf.reshape(logits, [-1, CLASSES])
        return softmax_cross_entropy_sum(labels, flat, tf.ones_like(labels)) / tf.cast(tf.shape(rows)[1], tf.float32)

    def teacher(self, sizes):
        """Logits of the training images, of a network trained on them."""
        weights, _ = self.train(sizes, self.plain, 0.05, clip=1.0, seeds=1)
        return forward(weights, self.images[None])[0].numpy()

    def distilled(self, teacher, temperature, rate=0.005, spherically=True, sizes=STUDENT, clip=None):
        """Accuracies [seeds] of students of a teacher."""
        multiplier = float(teacher.std(axis=1).mean())

        def loss(logits, rows):
            mine, target = (tf.reshape(z, [-1, CLASSES]) for z in (logits, tf.gather(teacher, rows)))
            if spherically:
                mine, target = spherical.rescaled_pair("layer_norm", mine, target, multiplier)
            count = tf.shape(rows)[1]
            soft = spherical.divergence_sum(target, mine, temperature, tf.ones(tf.size(rows)))
            return ALPHA * soft / tf.cast(count, tf.float32) + (1 - ALPHA) * self.plain(mine, rows)

        return self.train(sizes, loss, rate, clip=clip)[1]


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def large(digits) -> np.ndarray:
    return digits.teacher(LARGE)


def test_the_temperature_matters_less_and_the_best_is_no_worse(digits, large):
    means = {
        kind: [digits.distilled(large, t, spherically=kind).mean() for t in TEMPERATURES] for kind in (False, True)
    }
    plain, spherical_ones = means[False], means[True]
    assert np.ptp(spherical_ones) < 0.5 * np.ptp(plain), means
    assert max(spherical_ones) >= max(plain), means
    alone = digits.train(STUDENT, digits.plain, 0.005)[1].mean()
    assert max(plain) > alone + 0.05, "students that are still learning"


def test_a_larger_teacher_is_not_worse(digits, large):
    by_large, by_small = (digits.distilled(teacher, 4.0).mean() for teacher in (large, digits.teacher(SMALL)))
    assert by_large >= by_small - 0.005


def test_without_clipping_a_high_rate_throws_tiny_students_off(digits, large):
    """Gradients grow as one over the deviation of the logits; plain distillation has no such steps."""
    tiny = {"sizes": [64, 6, 10], "rate": 0.05}
    free, clipped = (digits.distilled(large, 4.0, clip=clip, **tiny).mean() for clip in (None, 1.0))
    plain = digits.distilled(large, 4.0, spherically=False, **tiny).mean()
    assert free < plain - 0.1 and free < clipped - 0.1, (free, clipped, plain)
