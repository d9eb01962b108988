"""From a configuration to a network, in whatever a builder makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.image.size import size_text
from modelzoo.cnn import densenet, inverted, plain, preact, pyramidnet, residual, shake_shake
from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig

_FEATURES: dict[str, Callable[[Builder, Any, CnnConfig], Any]] = {
    "pyramidnet": pyramidnet.features,
    "shake_shake": shake_shake.features,
    "densenet": densenet.features,
    "efficientnet": inverted.features,
    "mobilenet_v2": inverted.features,
    "vgg": plain.vgg,
    "smallcnn": plain.smallcnn,
    "mlp": plain.mlp,
}


def features(b: Builder, images: Any, config: CnnConfig) -> Any:
    """Adds the network up to its last vector.

    Args:
        b: Builder.
        images: Its tensor of the images, [batch, height, width, channels].
        config: Configuration.

    Returns:
        [batch, width].

    Raises:
        ModelError: The family has no layers of its own, or the images are too small.
    """
    if config.family == "saved_model":
        raise ModelError("the layers of a SavedModel are not known", received=config.handle)
    usual = preact.features if config.pre_activation else residual.features
    try:
        return _FEATURES.get(config.family, usual)(b, images, config)
    except ValueError as error:
        raise ModelError(
            f"{config.family} does not work with images of {size_text(config.image_size)} pixels: {error}",
            fix="raise image_size, or take fewer stages",
        ) from None


def head(b: Builder, vector: Any, config: CnnConfig, classes: int) -> Any:
    """Adds dropout and the classifier: [batch, width] to logits [batch, classes]."""
    return b.dense(b.dropout(vector, config.dropout), classes, "logits")
