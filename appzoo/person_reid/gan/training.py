"""The losses of AS-GAN, its two optimizers and its figures; of a run of its own, and of a stage of AIFL."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.person_reid.config import GanSettings
from appzoo.person_reid.gan.model import ApparelGan
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, TrainingStep
from easytransfer.train.task import Batch, Outputs

CRITIC = "critic"
_REGIONS = ("style_upper", "style_lower")


def gan_losses(gan: ApparelGan, batch: Batch, terms: Outputs) -> Losses:
    """Returns the losses of the generator, weighted, and that of the critic (sheet 4.1).

    L_rec and L_cyc are divided by the share of garments, of masks from the table by theirs and else by the prior;
    L_sty by the number of pairs in which both persons wear such a garment.

    Args:
        gan: The model.
        batch: Its rows, with `example_weight`.
        terms: `ApparelGan.training_terms` of them.
    """
    chosen, rows = gan.settings, batch["example_weight"]
    count = tf.reduce_sum(rows)
    sums = {name: tf.reduce_sum(each * rows) for name, each in terms.items()}
    area = garment_area(gan, batch)
    found = {
        "reconstruction": Loss(chosen.reconstruction_weight * sums["reconstruction"], area),
        "embedding": Loss(chosen.embedding_weight * sums["embedding"], count),
        "cycle": Loss(chosen.cycle_weight * sums["cycle"], area),
    }
    for name, pairs in zip(_REGIONS, _pairs(gan, batch), strict=True):
        found[name] = Loss(chosen.style_weight * sums[name], tf.reduce_sum(pairs * rows))
    found["adversarial"] = Loss(chosen.adversarial_weight * sums["adversarial"], count)
    if gan.mask_head is not None:
        found["mask"] = Loss(sums["mask"], count)
    found[CRITIC] = Loss(sums[CRITIC], count)
    return found


def garment_area(gan: ApparelGan, batch: Batch) -> tf.Tensor:
    """Returns the summed shares of garments of the rows, a function of the batch alone."""
    rows = batch["example_weight"]
    if gan.mask_head is not None:
        return tf.reduce_sum(rows) * gan.settings.area_prior
    return tf.reduce_sum(tf.reduce_mean(tf.reduce_sum(gan.masks(batch), axis=-1), axis=[1, 2]) * rows)


def _pairs(gan: ApparelGan, batch: Batch) -> list[tf.Tensor]:
    """Returns where both images of a pair have an upper, and a lower garment, float32 [batch] each."""
    if gan.settings.masks != "column":
        return [tf.ones_like(batch["example_weight"])] * len(_REGIONS)
    there = tf.cast(tf.reduce_any(gan.masks(batch) > 0, axis=[1, 2]), tf.float32)
    return tf.unstack(there * tf.roll(there, -(tf.shape(there)[0] // 2), axis=0), axis=1)


def gan_optimizers(gan: ApparelGan, settings: GanSettings) -> dict[str, OptimizerPart]:
    """Returns the optimizers `generator`, of encoder, generator and mask head, and `critic`."""
    rate = {"generator": settings.learning_rate, CRITIC: settings.critic_learning_rate}
    variables = {"generator": gan.drawing_variables, CRITIC: gan.critic.trainable_variables}
    return {name: OptimizerPart(part, {"learning_rate": rate[name]}) for name, part in variables.items()}


def gan_step(gan: ApparelGan, step: TrainingStep, batch: Batch) -> Losses:
    """Makes one step of both players, from the same images.

    Args:
        gan: The model.
        step: The step.
        batch: `image` float32 from 0 to 1; see `ApparelGan.training_terms`.
    """
    with tf.GradientTape(persistent=True) as tape:
        losses = gan_losses(gan, batch, gan.training_terms(batch))
        drawing = {name: loss for name, loss in losses.items() if name != CRITIC}
        objectives = {
            "generator": step.objective(drawing, "generator"),
            CRITIC: step.objective({CRITIC: losses[CRITIC]}, CRITIC),
        }
    for name, objective in objectives.items():
        step.update(tape.gradient(objective, step.variables(name)), name)
    return losses


class GanEvaluator(Evaluator):
    """Figures of a generator, see `ApparelGan.figures`.

    `reconstruction_error` is L_rec, `embedding_error` L_emb, `outside_change` the largest change outside of garments,
    which must be 0, and `followed` the share of garments whose colour has come nearer to the wanted one.
    """

    main_metric = "reconstruction_error"
    higher_is_better = False

    def __init__(self) -> None:
        names = ("reconstruction", "area", "embedding", "regions", "followed")
        self._sums, self._rows, self._outside = dict.fromkeys(names, 0.0), 0, 0.0

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        sums = {name: float(np.sum(outputs[name], dtype=np.float64)) for name in self._sums}
        self.merge((sums, len(outputs["area"]), float(np.max(outputs["outside"], initial=0))))

    def state(self) -> tuple[dict[str, float], int, float]:
        """Returns the sums, the rows and the largest change."""
        return self._sums, self._rows, self._outside

    def merge(self, state: tuple[dict[str, float], int, float]) -> None:
        """Adds those of another evaluator."""
        sums, rows, outside = state
        self._sums = {name: total + sums[name] for name, total in self._sums.items()}
        self._rows, self._outside = self._rows + rows, max(self._outside, outside)

    def result(self) -> dict[str, float]:
        """Returns the figures; NaN where nothing was there to be measured."""
        sums = self._sums
        return {
            "reconstruction_error": _ratio(sums["reconstruction"], sums["area"]),
            "embedding_error": _ratio(sums["embedding"], self._rows),
            "outside_change": self._outside,
            "followed": _ratio(sums["followed"], sums["regions"]),
        }


def _ratio(total: float, count: float) -> float:
    return total / count if count else float("nan")
