"""A small teacher, a student of it, and their table, for the tests of spherical distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.distillation_skd.app import DistillationSkd
from appzoo.distillation_skd.config import DistillationSkdConfig
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.train import checkpoint
from easytransfer.train.weights import named_arrays

RANDOM = np.random.default_rng(4)
LABELS = ["ant", "bee", "cat", "dog"]
IMAGES = RANDOM.integers(0, 256, (10, 8, 8, 1)).astype(np.uint8)
TRUE = RANDOM.integers(0, 4, 10).astype(np.int32)
OFF = {"crop_padding": 0, "horizontal_flip": False}
FORM = {"image_size": 8, "channels": 1}
# The teacher's own statistics, which are not those of the student's table.
TEACHER_MEAN, TEACHER_STD = 0.2, 0.7


def rows() -> EncodedTable:
    return EncodedTable({"image": IMAGES, "label_id": TRUE})


def save_teacher(folder: Path, network: str = "mlp12x2_digits", labels=LABELS, **form) -> Path:
    """Writes the run folder of a classifier with random weights; labels without comma make it a regression."""
    form = {**FORM, "channel_mean": [TEACHER_MEAN], "channel_std": [TEACHER_STD], **form}
    data, runtime = {"label_enumerate_values": ",".join(labels)}, {"seed": 3}
    app = ImageClassify(ImageClassifyConfig(data=data, model={"network": network, **form}, runtime=runtime))
    app.load_assets(None)
    app.build_model()
    random = np.random.default_rng(6)
    app.model.set_weights([w + random.uniform(-0.1, 0.1, w.shape).astype(np.float32) for w in app.model.get_weights()])
    folder.mkdir(parents=True)
    app.save_assets(folder)
    checkpoint.save(folder, 5, named_arrays(app.model.weights), {}, {})
    checkpoint.point(folder, 5, 5)
    return folder


def make_app(teacher: Path | None, **sections) -> DistillationSkd:
    given = {"data": {}, "model": {}, "augment": OFF, "train": {}, "distillation": {}, **sections}
    given["data"] = {"label_enumerate_values": ",".join(LABELS), **given["data"]}
    given["model"] = {"network": "mlp8x1_digits", **FORM, **given["model"]}
    given["distillation"] = {"teacher": None if teacher is None else str(teacher), **given["distillation"]}
    app = DistillationSkd(DistillationSkdConfig(model_name="distillation_skd", **given))
    app.load_assets(None)
    return app


def built(teacher: Path | None, table: EncodedTable | None = None, **sections) -> DistillationSkd:
    app = make_app(teacher, **sections)
    app.on_train_table(rows() if table is None else table)
    app.build_model()
    return app


def batch(table: EncodedTable | None = None) -> dict[str, tf.Tensor]:
    table = rows() if table is None else table
    return {name: tf.constant(value) for name, value in table.batch(range(len(table))).items()}


def teacher_logits(folder: Path, images: np.ndarray = IMAGES) -> np.ndarray:
    """A pass through the layers of the teacher in NumPy, with its own statistics."""
    stored = checkpoint.load(folder / "model.ckpt-5", weights_only=True).weights
    x = ((images / 255 - TEACHER_MEAN) / TEACHER_STD).reshape(len(images), -1)
    values = list(stored.values())
    assert [value.ndim for value in values] == [2, 1] * 3
    for kernel, bias in zip(values[:4:2], values[1:4:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    return x @ values[4] + values[5]


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def sphere(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    return (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
