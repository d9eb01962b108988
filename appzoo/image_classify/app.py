"""Image classification: one class, or a number, for each image."""

from __future__ import annotations

from appzoo.image_app import ImageApp
from appzoo.image_classify.config import ImageClassifyConfig


class ImageClassify(ImageApp):
    """A convolutional network trained with softmax cross entropy; see `ImageApp` for the way of a row."""

    config: ImageClassifyConfig


VARIANTS = {"": ImageClassify}
