"""What a student answers: the class that its logits name, with probabilities at the scale they were trained at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.app.targets.labels import SingleLabel
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.train.task import Outputs


class StudentLabel(SingleLabel):
    """One class per row.

    Args:
        labels: The classes.
        served: Takes the logits of the network [batch, classes] to those whose softmax is answered.
    """

    def __init__(self, labels: LabelMap, served: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__(labels)
        self._served = served

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns what classes have, of the served logits, and `class_id` and the raw `logits`."""
        logits = outputs["logits"]
        numbers = {"class_id": tf.argmax(logits, axis=-1, output_type=tf.int32), "logits": logits}
        return {**super().answer({"logits": self._served(logits)}), **numbers}

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns `predictions`, `probabilities` of the served logits, and raw `logits` per row."""
        served = self.columns(np.asarray(self._served(outputs["logits"])))
        return {**served, "logits": list(outputs["logits"])}
