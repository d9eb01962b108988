"""The whole network: normalised images, features of a dilated backbone, RESA, maps and existence."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.lane_detection.config import STRIDE, TINY, LaneSettings, ResaSettings
from appzoo.lane_detection.decoders import BusdDecoder, ExistHead, PlainDecoder
from appzoo.lane_detection.resa import Resa
from appzoo.network_settings import stated_shape
from easytransfer import keras
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.keras_builder import layer_seed
from modelzoo.cnn.pretrained import start_network

# Means of blue, green and red from 0 to 255 that released networks subtract, and ImageNet's of red, green and blue.
BGR_MEAN = (103.939, 116.779, 123.68)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY_WIDTHS = (16, 24, 32)
# What the three blocks of BUSD leave of 32 channels in the tiny network, where eighths would be too few.
TINY_BUSD = (16, 12, 8)


class TinyBody(keras.layers.Layer):
    """Three strided 3x3 convolutions, each with batch normalisation and ReLU, for tests (sheet 2.6).

    Args:
        seed: Of the start values.

    Call arguments:
        images: float32 [batch, height, width, 3], normalised.

    Returns:
        [batch, height / 8, width / 8, 32].
    """

    def __init__(self, seed: int) -> None:
        super().__init__(name="body")
        self.convs = [
            keras.layers.Conv2D(
                width,
                3,
                strides=2,
                use_bias=False,
                kernel_initializer=keras.initializers.VarianceScaling(
                    2.0, "fan_out", "untruncated_normal", seed=layer_seed(seed, f"body/conv{number}")
                ),
                name=f"conv{number}",
            )
            for number, width in enumerate(TINY_WIDTHS, 1)
        ]
        self.norms = [
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm{number}")
            for number in range(1, len(TINY_WIDTHS) + 1)
        ]

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            images = conv(tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]]))
            images = tf.nn.relu(norm(images, training=training))
        return images


class LaneNetwork(keras.Model):
    """Probability maps of lanes, and which of them exist.

    Args:
        settings: Sizes; with those of RESA it stands between backbone and heads.
        body: Network of the feature maps at stride 8; a `TinyBody` when None.
        seed: Of the start values.

    Call arguments:
        batch: `image` [batch, height, width, 3], red, green and blue from 0 to 255, uint8 or float32.
        training: Whether dropout acts and batch normalisation uses the batch.

    Returns:
        `logits` [batch, height, width, slots + 1], background first, and `exist_logits` [batch, slots], both float32.
    """

    def __init__(self, settings: LaneSettings, body: CnnBackbone | None, seed: int) -> None:
        # Without automatic casting: images would lose bits before they are normalised.
        super().__init__(name="lanes", autocast=False)
        self.body = TinyBody(seed) if body is None else body
        self.input_mode = settings.input_mode
        channels, classes, rate = settings.channels, settings.classes, settings.dropout_rate
        start = keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal", seed=layer_seed(seed, "reduced")
        )
        self.reduced = keras.layers.Conv2D(channels, 1, use_bias=False, kernel_initializer=start, name="reduced")
        self.resa = None
        if isinstance(settings, ResaSettings):
            self.resa = Resa(
                settings.iterations, settings.kernel_width, settings.alpha, settings.directions, settings.resa_init,
                seed, name="resa",
            )  # fmt: skip
        if settings.decoder == "busd":
            self.decoder = BusdDecoder(channels, classes, seed, TINY_BUSD if body is None else None)
        else:
            self.decoder = PlainDecoder(channels, classes, rate, STRIDE, seed)
        self.exist = ExistHead(channels, settings.feature_size, classes, settings.exist_units, rate, seed)

    def call(self, batch: dict[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """See the class."""
        features = self.features(normalised(batch["image"], self.input_mode), training)
        logits, exist = self.decoder(features, training=training), self.exist(features, training=training)
        return {"logits": tf.cast(logits, tf.float32), "exist_logits": tf.cast(exist, tf.float32)}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trained variables by depth: those of the backbone from the first layers on, and all that follows."""
        tiny = isinstance(self.body, TinyBody)
        groups = [list(self.body.trainable_variables)] if tiny else list(filter(None, self.body.layer_groups()))
        known = {id(variable) for group in groups for variable in group}
        return [*groups, [variable for variable in self.trainable_variables if id(variable) not in known]]

    def features(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns what heads read, [batch, height / 8, width / 8, channels], of normalised images."""
        if isinstance(self.body, TinyBody):
            maps = self.body(images, training=training)
        else:
            maps = self.body.feature_maps(images, training=training)[STRIDE]
        reduced = self.reduced(maps)
        return reduced if self.resa is None else self.resa(reduced)


def normalised(images: tf.Tensor, mode: str) -> tf.Tensor:
    """Returns float32 images as a backbone takes them.

    Args:
        images: Red, green and blue from 0 to 255.
        mode: `bgr_mean` or `imagenet`, see the setting `input_mode`.
    """
    images = tf.cast(images, tf.float32)
    if mode == "bgr_mean":
        return images[..., ::-1] - np.float32(BGR_MEAN)
    return (images / 255 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)


def backbone_shape(settings: LaneSettings, zoo: str | None = None) -> CnnConfig | None:
    """Returns the shape of the network of the feature maps, dilated to stride 8; None for the tiny one.

    Args:
        settings: Name it, or the place of its weights.
        zoo: Root of the ModelZoo.
    """
    shape = stated_shape(settings, TINY, zoo)
    if shape is None:
        return None
    shape, stages = shape.replace(output_stride=STRIDE), settings.backbone_stages
    return shape if stages is None else shape.first_stages(stages)


def backbone(settings: LaneSettings, seed: int, zoo: str | None = None) -> CnnBackbone | None:
    """Returns the network of the feature maps with its start values; None for the tiny one.

    Args:
        settings: Name it, or the place of its weights.
        seed: Of random weights.
        zoo: Root of the ModelZoo.
    """
    if settings.backbone_path is not None:
        changes = {"classifier": False, "output_stride": STRIDE, "stages": settings.backbone_stages}
        return CnnBackbone.from_preset(settings.backbone_path, zoo=zoo, **changes)
    shape = backbone_shape(settings, zoo)
    if shape is None:
        return None
    return start_network(settings.network, shape, None, seed, weights=settings.weights, zoo=zoo)
