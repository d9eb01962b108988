"""A task whose three losses have three weights: pixels by class, slots, rows."""

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.data.encoded import EncodedTable
from easytransfer.train.step import Loss
from easytransfer.train.task import Task

PIXELS, SLOTS, CLASSES = 12, 3, 4
CLASS_WEIGHTS = np.array([0.4, 1.0, 1.0, 2.0], np.float32)


def lane_table(rows=24, seed=0):
    """Features, a map of pixel classes with -1 for unknown pixels, slots that exist or are unknown, and a number."""
    random = np.random.default_rng(seed)
    return EncodedTable(
        {
            "x": random.normal(size=(rows, 8)).astype(np.float32),
            "pixels": random.integers(-1, CLASSES, (rows, PIXELS)).astype(np.int32),
            "slots": random.integers(-1, 2, (rows, SLOTS)).astype(np.int32),
            "label": random.normal(size=rows).astype(np.float32),
        }
    )


class LaneTask(Task):
    """One hidden layer; pixels are divided by their class weights, slots and rows by their number."""

    def build_model(self):
        keras.utils.set_random_seed(1)
        x = keras.Input([8], name="x")
        hidden = keras.layers.Dense(16, activation="tanh")(x)
        pixels = keras.layers.Reshape([PIXELS, CLASSES])(keras.layers.Dense(PIXELS * CLASSES)(hidden))
        outputs = {"pixels": pixels, "slots": keras.layers.Dense(SLOTS)(hidden), "y": keras.layers.Dense(1)(hidden)}
        return keras.Model({"x": x}, outputs)

    def forward(self, batch, training=False):
        return {n: tf.cast(v, tf.float32) for n, v in self.model({"x": batch["x"]}, training=training).items()}

    def training_batch(self, batch, draws):
        """Forgets some slots at random: weights follow what augmentation leaves."""
        kept = draws.uniform(SLOTS) > 0.3
        return {**batch, "slots": tf.where(kept, batch["slots"], -1)}

    def losses(self, batch, outputs, step):
        rows = batch["example_weight"]
        factor = tf.gather(tf.constant(CLASS_WEIGHTS), tf.maximum(batch["pixels"], 0))
        pixels = rows[:, None] * factor * tf.cast(batch["pixels"] >= 0, tf.float32)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(batch["pixels"], 0), outputs["pixels"])
        known = rows[:, None] * tf.cast(batch["slots"] >= 0, tf.float32)
        target = tf.cast(batch["slots"] > 0, tf.float32)
        exist = tf.nn.sigmoid_cross_entropy_with_logits(target, outputs["slots"])
        error = tf.square(outputs["y"][:, 0] - batch["label"])
        return {
            "map": Loss(tf.reduce_sum(each * pixels), tf.reduce_sum(pixels)),
            "existence": Loss(0.1 * tf.reduce_sum(exist * known), tf.reduce_sum(known)),
            "number": Loss(tf.reduce_sum(error * rows), tf.reduce_sum(rows)),
        }

    def evaluator(self):
        raise NotImplementedError
