"""Features of a person: a backbone, its pooled output, and batch normalisation before the classifier (BNNeck).

Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPRW 2019, arXiv 1903.07071.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.network_settings import stated_shape
from appzoo.person_reid.config import CHANNELS, TINY, ReidSettings
from easytransfer import keras
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.keras_builder import layer_seed
from modelzoo.cnn.pretrained import start_network

TINY_WIDTHS, TINY_FEATURES = (24, 48, 72, 96), 64
_MOMENTUM, _EPSILON = 0.9, 1e-5
# Deviation of the start values of the classifier, as in the released baseline.
_CLASSIFIER_DEVIATION = 1e-3


class TinyBody(keras.layers.Layer):
    """Four small residual stages, each halving the image, for tests (sheet 3.1).

    Args:
        seed: Of the start values.

    Call arguments:
        images: float32 [batch, height, width, 3], normalised.

    Returns:
        float32 [batch, 64].
    """

    def __init__(self, seed: int) -> None:
        super().__init__(name="body")
        self.stages = []
        for number, width in enumerate(TINY_WIDTHS, 1):
            names = (f"stage{number}_conv1", f"stage{number}_conv2")
            convs = [_conv(width, seed, name) for name in names]
            norms = [_norm(name.replace("conv", "norm")) for name in names]
            self.stages.append((*convs, *norms))
        start = keras.initializers.GlorotUniform(layer_seed(seed, "body/features"))
        self.dense = keras.layers.Dense(TINY_FEATURES, kernel_initializer=start, name="features")

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        for first, second, norm1, norm2 in self.stages:
            images = tf.nn.relu(norm1(first(images), training=training))
            images = tf.nn.relu(images + norm2(second(images), training=training))
            images = tf.nn.max_pool2d(images, 2, 2, "SAME")
        return self.dense(tf.reduce_mean(images, axis=[1, 2]))


def _conv(width: int, seed: int, name: str) -> keras.layers.Conv2D:
    start = keras.initializers.HeNormal(layer_seed(seed, f"body/{name}"))
    return keras.layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=start, name=name)


def _norm(name: str, *, center: bool = True) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, center=center, name=name)


class ReidNetwork(keras.Model):
    """Features before and after BNNeck, and logits of the identities of the training.

    Args:
        settings: Normalisation of the images.
        body: Network of the features; a `TinyBody` when None.
        identities: Number of identities that the classifier tells apart.
        seed: Of the start values.

    Call arguments:
        images: [batch, height, width, 3], uint8, or float32 from 0 to 1.
        training: Whether batch normalisation uses the batch.

    Returns:
        `feature` f and `neck` b, float32 [batch, width], and `logits`, float32 [batch, identities].

    Example:
        >>> network = ReidNetwork(ReidSettings(network="tiny"), None, identities=10, seed=0)
        >>> network(tf.zeros([2, 64, 32, 3]))["neck"].shape
        TensorShape([2, 64])
    """

    def __init__(self, settings: ReidSettings, body: CnnBackbone | None, identities: int, seed: int) -> None:
        # Without automatic casting: images would lose bits before they are normalised.
        super().__init__(name="reid", autocast=False)
        self.body = TinyBody(seed) if body is None else body
        self.mean, self.std = np.float32(settings.mean), np.float32(settings.std)
        # Without a shift: the classifier's planes go through the origin, around which cosines are taken.
        self.neck = _norm("neck", center=False)
        start = keras.initializers.RandomNormal(stddev=_CLASSIFIER_DEVIATION, seed=layer_seed(seed, "classifier"))
        self.classifier = keras.layers.Dense(identities, use_bias=False, kernel_initializer=start, name="classifier")

    def call(self, images: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """See the class."""
        feature = self.features(images, training)
        neck = self.neck(feature, training=training)
        found = {"feature": feature, "neck": neck, "logits": self.classifier(neck)}
        return {name: tf.cast(value, tf.float32) for name, value in found.items()}

    def features(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns f [batch, width] of images as `call` takes them."""
        normalised = (unit_images(images) - self.mean) / self.std
        found = self.body(normalised, training=training)
        return found if isinstance(self.body, TinyBody) else found["features"]

    def embed(self, images: tf.Tensor) -> tf.Tensor:
        """Returns what persons are compared by: b of length 1, float32 [batch, width], without the classifier."""
        neck = self.neck(self.features(images, training=False), training=False)
        return tf.math.l2_normalize(tf.cast(neck, tf.float32), axis=-1)

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trained variables by depth: those of the backbone, then neck and classifier."""
        if isinstance(self.body, TinyBody):
            groups = [[v for part in stage for v in part.trainable_variables] for stage in self.body.stages]
            groups.append(list(self.body.dense.trainable_variables))
        else:
            groups = self.body.layer_groups()
        return [*groups, [*self.neck.trainable_variables, *self.classifier.trainable_variables]]


def unit_images(images: tf.Tensor) -> tf.Tensor:
    """Returns images as float32 from 0 to 1; uint8 ones are divided by 255."""
    return tf.cast(images, tf.float32) * (1 / 255) if images.dtype == tf.uint8 else images


def body_shape(settings: ReidSettings, zoo: str | None = None) -> CnnConfig | None:
    """Returns the shape of the backbone, its last stage at `last_stride`; None for the tiny one.

    Args:
        settings: Name it, or the place of its weights.
        zoo: Root of the ModelZoo.
    """
    shape = stated_shape(settings, TINY, zoo)
    if shape is None:
        return None
    strides = (*shape.strides[:-1], settings.last_stride) if shape.strides else shape.strides
    return shape.replace(strides=strides, image_size=settings.image_size, channels=CHANNELS)


def start_body(settings: ReidSettings, seed: int, zoo: str | None = None) -> CnnBackbone | None:
    """Returns the backbone with its start values; None for the tiny one.

    Args:
        settings: Name it, or the place of its weights.
        seed: Of random weights.
        zoo: Root of the ModelZoo.
    """
    shape = body_shape(settings, zoo)
    if settings.backbone_path is not None:
        changes = {"classifier": False, "strides": shape.strides, "image_size": settings.image_size}
        return CnnBackbone.from_preset(settings.backbone_path, zoo=zoo, **changes)
    if shape is None:
        return None
    return start_network(settings.network, shape, None, seed, weights=settings.weights, zoo=zoo)
