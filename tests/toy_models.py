"""Small SavedModels to serve, each saved in a second: `python toy_models.py FOLDER` writes those of the conformance
tests, for a TensorFlow Serving instance to be compared with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

TEXTS, FLOATS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.float32)
MODELS_CONFIG = """\
model_config_list {
  config {
    name: "toy"
    base_path: "/models/toy"
    model_platform: "tensorflow"
    model_version_policy { all {} }
    version_labels { key: "stable" value: 2 }
    version_labels { key: "canary" value: 3 }
  }
}
"""


class Toy(tf.Module):
    """Half plus a number, and whatever else the protocol can carry.

    Args:
        number: What is added; tests give each version its own.
    """

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = tf.Variable(number, dtype=tf.float32)

    def half_plus(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """[batch] float -> `y` [batch]."""
        return {"y": 0.5 * x + self.number}

    def table(self, tag: tf.Tensor, signal: tf.Tensor, sensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """The three inputs of the example in TensorFlow Serving's documentation, sums and the tag back."""
        total = tf.reduce_sum(signal, 1) + tf.reduce_sum(sensor, [1, 2])
        return {"tag": tag, "total": total, "doubled": 2 * sensor}

    def picture(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """[batch] bytes -> `size`, and `image_bytes` back; refuses empty ones as a decoder refuses broken ones."""
        length = tf.strings.length(image_bytes)
        with tf.control_dependencies([tf.debugging.assert_positive(length, "an image is empty")]):
            return {"size": tf.cast(length, tf.int64), "image_bytes": tf.identity(image_bytes)}

    def texts(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """[batch] text -> `characters` [batch]."""
        return {"characters": tf.strings.length(text, unit="UTF8_CHAR")}

    def divide(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        """[batch] floats -> `quotient`, NaN and infinite ones too."""
        return {"quotient": a / b}

    def flags(self, flag: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        """[batch] bool and uint8 -> both back."""
        return {"flag": tf.logical_not(flag), "count": count}

    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Examples with `x` float and `name` bytes -> classes and scores."""
        found = self._parsed(inputs)
        scores = tf.stack([found["x"], 1 - found["x"]], 1)
        classes = tf.stack([found["name"], tf.fill(tf.shape(found["name"]), "other")], 1)
        return {"classes": classes, "scores": scores}

    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Examples with `x` -> half plus the number."""
        return {"outputs": self.half_plus(self._parsed(inputs)["x"])["y"]}

    @staticmethod
    def _parsed(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {"x": tf.io.FixedLenFeature([], tf.float32), "name": tf.io.FixedLenFeature([], tf.string, "x")}
        return tf.io.parse_example(inputs, features)


def save_toy(folder: Path, number: float, only: str | None = None) -> Path:
    """Saves a version.

    Args:
        folder: The version folder.
        number: What the version adds.
        only: The one signature it has; all by default.
    """
    toy = Toy(number)
    rows, bools, bytes_ = tf.TensorSpec([None, 5], tf.float32), tf.TensorSpec([None], tf.bool), TEXTS
    specs: dict[str, tuple[Any, dict[str, tf.TensorSpec]]] = {
        "serving_default": (toy.half_plus, {"x": FLOATS}),
        "table": (toy.table, {"tag": TEXTS, "signal": rows, "sensor": tf.TensorSpec([None, 2, 2], tf.float32)}),
        "picture": (toy.picture, {"image_bytes": bytes_}),
        "texts": (toy.texts, {"text": TEXTS}),
        "divide": (toy.divide, {"a": FLOATS, "b": FLOATS}),
        "flags": (toy.flags, {"flag": bools, "count": tf.TensorSpec([None], tf.uint8)}),
        "classify": (toy.classify, {"inputs": TEXTS}),
        "regress": (toy.regress, {"inputs": TEXTS}),
    }
    chosen = {name: entry for name, entry in specs.items() if only in (None, name)}
    traced = {}
    for name, (function, inputs) in chosen.items():
        named = {key: tf.TensorSpec(spec.shape, spec.dtype, name=key) for key, spec in inputs.items()}
        traced[name] = tf.function(function, autograph=False).get_concrete_function(**named)
    tf.saved_model.save(toy, str(folder), signatures=traced)
    return folder


def write_models(base: Path) -> Path:
    """Writes the models of the conformance tests: `toy` in the versions 2 and 3, each adding its number."""
    for version in (2, 3):
        save_toy(base / "toy" / str(version), float(version))
    (base / "models.config").write_text(MODELS_CONFIG, encoding="utf-8")
    return base


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
