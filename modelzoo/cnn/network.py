"""A residual network of three blocks."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from modelzoo.cnn.config import CnnConfig


def build(config: CnnConfig, classes: int, seed: int) -> keras.Model:
    """Returns the built network: images [batch, height, width, channels] to `features` and `logits`."""
    layers, count = keras.layers, iter(range(100))

    def conv(x: tf.Tensor, width: int, stride: int = 1, size: int = 3) -> tf.Tensor:
        start = keras.initializers.HeNormal(seed + next(count))
        x = layers.Conv2D(width, size, stride, "same", use_bias=False, kernel_initializer=start)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    images = keras.Input([config.image_size, config.image_size, config.channels])
    x = layers.ReLU()(conv(images, config.widths[0]))
    for number, width in enumerate(config.widths):
        stride = 1 + (number > 0)
        inner = conv(layers.ReLU()(conv(x, width, stride)), width)
        x = layers.ReLU()(inner + (conv(x, width, stride, 1) if number else x))
    features = layers.GlobalAveragePooling2D()(x)
    start = keras.initializers.GlorotUniform(seed + next(count))
    logits = layers.Dense(classes, kernel_initializer=start, dtype="float32", name="head")(features)
    return keras.Model(images, {"features": features, "logits": logits})
