"""What attacks raise: losses of a classifier at changed images."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from appzoo.adversarial_training.attacks.gradient import Objective
from easytransfer.losses import adversarial as losses

# Images to logits [batch, classes], the model in inference mode.
Logits = Callable[[tf.Tensor], tf.Tensor]
_LABELLED = {
    "ce": losses.cross_entropy_rows,
    "cw": losses.carlini_wagner_rows,
    "dlr": losses.logits_ratio_rows,
}
LOSSES = (*_LABELLED, "kl")


def objective(loss: str, logits: Logits, labels: tf.Tensor, images: tf.Tensor) -> Objective:
    """Returns the objective of an attack.

    Args:
        loss: `ce` cross entropy, `cw` margin, `dlr` difference of logits ratio, all against the labels; `kl`
            divergence from the prediction for `images`.
        logits: The attacked model.
        labels: Class ids, int [batch].
        images: Natural images, float32 from 0 to 1.

    Raises:
        ValueError: Unknown loss.
    """
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r} of an attack; accepted: {', '.join(LOSSES)}")
    natural = tf.stop_gradient(logits(images)) if loss == "kl" else None

    def measure(changed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = logits(changed)
        rows = _LABELLED[loss](labels, found) if natural is None else losses.kl_rows(natural, found)
        fooled = tf.argmax(found, axis=-1, output_type=tf.int32) != tf.cast(labels, tf.int32)
        return rows, fooled

    return measure
