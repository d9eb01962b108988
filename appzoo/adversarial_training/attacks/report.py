"""Robustness report: accuracy over the radius, accuracy under several attacks, and checks for masked gradients.

The numbers are those that RobustBench (https://arxiv.org/abs/2010.09670) lists, accuracy on clean images and accuracy
under attack at one radius, a row counting as robust when no attack fools it. The attacks are not all of AutoAttack's,
so the second is an upper bound of what it would find. The checks are those of Athalye et al.
(https://arxiv.org/abs/1802.00420, section 3.1) and Carlini et al. (https://arxiv.org/abs/1902.06705).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.adversarial_training.attacks.ball import Ball, Norm
from appzoo.adversarial_training.attacks.names import named_attack
from appzoo.adversarial_training.attacks.noise import NumberedDraws
from appzoo.adversarial_training.attacks.objectives import Logits
from appzoo.adversarial_training.attacks.run import attacked
from easytransfer.image.augment import unit_scale

# Accuracy that chance may add: half a point, or one row of a small table.
TOLERANCE = 0.005
# Accuracy that is called zero, in a ball that holds every image.
NOTHING = 0.05
NOT_EVERYTHING = (
    "The attacks are white-box ones on this model; AutoAttack adds targeted attacks, FAB and Square, so its robust "
    "accuracy can only be lower."
)


@dataclass(frozen=True)
class Protocol:
    """What is measured.

    Attributes:
        norm: Norm of the balls.
        epsilon: Radius at which attacks are compared.
        attacks: Names of attacks; the first also draws the curve.
        factors: Radii of the curve, in multiples of `epsilon`.
        batch_size: Rows per attack.
    """

    norm: Norm
    epsilon: float
    attacks: Sequence[str]
    factors: Sequence[float]
    batch_size: int


class RobustnessReport:
    """Attacks a classifier on the rows of a table.

    Args:
        logits: The classifier in inference mode.
        images: uint8 [rows, height, width, channels].
        labels: Class ids, int [rows].
        numbers: Numbers of the rows in their table, int [rows], for their random starts.
        protocol: What is measured.
    """

    def __init__(
        self, logits: Logits, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray, protocol: Protocol
    ) -> None:
        self._logits, self._protocol = logits, protocol
        self._columns = (images, np.asarray(labels, np.int32), np.asarray(numbers, np.int32))
        self._graphs: dict[str, Callable[..., tf.Tensor]] = {}
        self._clean = self._right("clean", 0.0)

    def measure(self) -> dict[str, Any]:
        """Returns the report: `clean`, `robust`, `attacks`, `curve`, `checks` and what they were measured with."""
        given, first = self._protocol, self._protocol.attacks[0]
        under = {name: self._right(name, given.epsilon) for name in given.attacks}
        largest = 1.0 if given.norm == "linf" else math.sqrt(math.prod(self._columns[0].shape[1:]))
        radii = sorted({factor * given.epsilon for factor in given.factors} | {given.epsilon, largest})
        curve = [{"epsilon": 0.0, "accuracy": float(self._clean.mean())}]
        for radius in radii:
            right = under[first] if radius == given.epsilon else self._right(first, radius)
            curve.append({"epsilon": radius, "accuracy": float(right.mean())})
        robust = np.logical_and.reduce([self._clean, *under.values()])
        return {
            "rows": len(self._clean),
            "norm": given.norm,
            "epsilon": given.epsilon,
            "clean": float(self._clean.mean()),
            "robust": float(robust.mean()),
            "attacks": {name: float(right.mean()) for name, right in under.items()},
            "curve_attack": first,
            "curve": curve,
            "checks": self._checks(first, float(under[first].mean()), [point["accuracy"] for point in curve]),
            "note": NOT_EVERYTHING,
        }

    def _checks(self, first: str, accuracy: float, curve: list[float]) -> list[dict[str, Any]]:
        """Returns what should hold for a model that hides no gradient, and whether it does."""
        epsilon, slack = self._protocol.epsilon, max(TOLERANCE, 1.01 / len(self._clean))
        one_step, noise = (float(self._right(name, epsilon).mean()) for name in ("fgsm", "noise"))
        attack = named_attack(first)
        longer = first.replace(str(attack.steps), str(2 * attack.steps))
        more = float(self._right(longer, epsilon).mean()) if attack.steps else accuracy
        rises = max((after - before for before, after in zip(curve, curve[1:], strict=False)), default=0.0)
        return [
            _check("accuracy falls as the radius grows", rises <= slack, largest_rise=rises),
            _check("accuracy is near 0 in a ball of all images", curve[-1] <= NOTHING, accuracy=curve[-1]),
            _check("steps are as strong as one step", accuracy <= one_step + slack, steps=accuracy, one_step=one_step),
            _check("twice the steps are as strong", more <= accuracy + slack, twice=more, once=accuracy),
            _check("noise is no stronger than gradients", noise >= accuracy - slack, noise=noise, gradients=accuracy),
        ]

    def _right(self, name: str, epsilon: float) -> np.ndarray:
        """Returns which rows are classified right under an attack, bool [rows]."""
        if name not in self._graphs:
            self._graphs[name] = self._graph(name)
        size, graph = self._protocol.batch_size, self._graphs[name]
        found = [
            graph(
                *(tf.constant(column[start : start + size]) for column in self._columns), tf.constant(epsilon)
            ).numpy()
            for start in range(0, len(self._columns[0]), size)
        ]
        return np.concatenate(found)

    def _graph(self, name: str) -> Callable[..., tf.Tensor]:
        """Returns which rows of a batch are right, as one graph for every radius and number of rows."""
        images, labels, numbers = (tf.TensorSpec([None, *c.shape[1:]], c.dtype) for c in self._columns)

        @tf.function(input_signature=[images, labels, numbers, tf.TensorSpec([], tf.float32)])
        def right(images: tf.Tensor, labels: tf.Tensor, numbers: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
            shown = unit_scale(images)
            if name != "clean":
                ball, draws = Ball(self._protocol.norm, epsilon), NumberedDraws(0, numbers)
                shown = attacked(named_attack(name), self._logits, shown, labels, ball, draws).images
            return tf.argmax(self._logits(shown), axis=-1, output_type=tf.int32) == labels

        return right


def _check(text: str, passed: bool, **numbers: float) -> dict[str, Any]:
    return {"check": text, "passed": bool(passed), **numbers}
