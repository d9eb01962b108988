"""Builds image classifiers from their configurations."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig


def build(config: CnnConfig, classes: int, seed: int) -> keras.Model:
    """Returns a classifier with fresh weights that depend only on the configuration and the seed.

    Args:
        config: Configuration, such as `named("resnet20_cifar")`.
        classes: Number of classes.
        seed: Seed of the start values.

    Returns:
        A model for float32 images [batch, height, width, channels], already normalised, called as
        `model(images, training=bool)`. It gives `features` [batch, width] and `logits` [batch, classes], both float32.

    Raises:
        ModelError: The images are too small for the network, or a SavedModel cannot be used.

    Example:
        >>> build(named("resnet8_cifar"), classes=10, seed=0)(tf.zeros([2, 32, 32, 3]))["logits"].shape
        TensorShape([2, 10])
    """
    return CnnBackbone(config, classes, seed)
