"""The frozen network that a student learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.image_settings import ImageSettings
from appzoo.image_source import open_source
from easytransfer.app.frozen import Frozen, saved_model_digest
from easytransfer.errors import ModelError
from easytransfer.image.augment import unit_scale
from easytransfer.savedmodel.manifest import MANIFEST
from modelzoo.cnn.saved_model import SavedModelLayer

ROLE = "teacher"


class Teacher:
    """Logits of a network that is not trained.

    Args:
        frozen: Takes `image` [batch, height, width, channels], uint8, or float32 from 0 to 1; gives `logits`.
    """

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self._call = tf.function(self.__call__, reduce_retracing=True)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Returns float32 logits [batch, classes]; see `Frozen`."""
        return self.frozen({"image": images})["logits"]

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
        return Teacher(_of_saved_model(path, len(labels), student, batch_size))
    return Teacher(open_source(path, ROLE, labels, student))


def _of_saved_model(path: Path, classes: int, student: ImageSettings, batch_size: int) -> Frozen:
    layer = SavedModelLayer(str(path), trainable=False, dtype="float32", name=ROLE)
    size = [min(batch_size, 2), *student.image_shape]
    try:
        shape = layer(tf.zeros(size)).shape.as_list()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(f"the teacher {path} does not take images {size}: {str(error).splitlines()[0]}") from None
    if shape != [size[0], classes]:
        raise ModelError(f"the teacher {path} gives no logits of {classes} classes", received=shape)

    def call(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = batch["image"]
        return {"logits": layer(unit_scale(images) if images.dtype == tf.uint8 else images, training=False)}

    specs = {"image": tf.TensorSpec([None, *size[1:]], tf.float32)}
    return Frozen(ROLE, call, specs, {"path": str(path), "kind": "saved_model", "sha256": saved_model_digest(path)})
