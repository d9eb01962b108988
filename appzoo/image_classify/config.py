"""Configuration of image classification."""

from __future__ import annotations

from appzoo.image_settings import ImageJobConfig


class ImageClassifyConfig(ImageJobConfig):
    """Classify images by a convolutional network."""


VARIANTS = {"": ImageClassifyConfig}
