"""The frozen network that a student learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.image_app import NETWORK_FILE, ImageModel
from appzoo.image_settings import ImageSettings
from appzoo.image_source import source_network
from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.image.augment import unit_scale
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.savedmodel.manifest import MANIFEST
from easytransfer.train import checkpoint
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.saved_model import SavedModelLayer


class Teacher:
    """Logits of a network that is not trained. No model of a student owns its weights.

    Args:
        network: Takes images as `ImageModel` does, and gives logits [batch, classes].
        source: Where it was read from.
        digest: SHA-256 of its weights, empty where it is not known.
    """

    def __init__(self, network: keras.layers.Layer, source: Path, digest: str = "") -> None:
        network.trainable = False
        self.network, self.source, self.digest = network, source, digest
        self._call = tf.function(self.__call__, reduce_retracing=True)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Returns float32 logits [batch, classes], without dropout, with moving statistics and without gradients.

        Args:
            images: [batch, height, width, channels], uint8, or float32 from 0 to 1.
        """
        if isinstance(self.network, ImageModel):
            logits = self.network({"image": images}, training=False)["logits"]
        else:
            logits = self.network(unit_scale(images) if images.dtype == tf.uint8 else images, training=False)
        return tf.stop_gradient(tf.cast(logits, tf.float32))

    def over(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Returns the logits of a table of uint8 images, float32 [rows, classes]."""
        starts = range(0, len(images), batch_size)
        return np.concatenate([self._call(tf.constant(images[i : i + batch_size])).numpy() for i in starts])


def open_teacher(path: str | Path, labels: Sequence[str], student: ImageSettings, batch_size: int) -> Teacher:
    """Reads a teacher and checks that it gives logits of the student's classes for the student's images.

    Args:
        path: Run folder or checkpoint of an application on single images, or a folder with a SavedModel that takes
            float32 images from 0 to 1 and returns logits [batch, classes] in the order of `labels`.
        labels: Class names of the student.
        student: Form of the student's images.
        batch_size: Rows with which a SavedModel is tried.

    Raises:
        ModelError: Nothing usable is there, or it does not fit the student.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        raise ModelError(
            f"the teacher {path} is an export, which takes no augmented images", fix="give the run folder it came from"
        )
    if (path / "saved_model.pb").is_file():
        return _from_saved_model(path, len(labels), student, batch_size)
    try:
        found = checkpoint.resolve(path)
    except ModelError as error:
        raise ModelError(f"no teacher: {error}") from None
    folder = found.parent
    config = source_network(folder, "the teacher", labels, student)
    model = ImageModel(CnnBackbone(config, len(labels), seed=0), ChannelStatistics.load(folder))
    model({"image": tf.zeros([1, *config.image_shape], tf.uint8)})
    try:
        checkpoint.load_weights(model, found)
    except ModelError as error:
        # A second line would be the table of all weights.
        reason = str(error).splitlines()[0]
        raise ModelError(f"the weights of the teacher are not those of its {NETWORK_FILE}: {reason}") from None
    state = json.loads((found / checkpoint.STATE).read_text(encoding="utf-8"))
    return Teacher(model, found, state["files"][checkpoint.WEIGHTS])


def _from_saved_model(path: Path, classes: int, student: ImageSettings, batch_size: int) -> Teacher:
    layer = SavedModelLayer(str(path), trainable=False, dtype="float32", name="teacher")
    size = [min(batch_size, 2), *student.image_shape]
    try:
        shape = layer(tf.zeros(size)).shape.as_list()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(f"the teacher {path} does not take images {size}: {str(error).splitlines()[0]}") from None
    if shape != [size[0], classes]:
        raise ModelError(f"the teacher {path} gives no logits of {classes} classes", received=shape)
    return Teacher(layer, path)
