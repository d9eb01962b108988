"""Adversarial training: images are attacked in every step, and a robust term joins the loss.

`train_step` attacks the augmented images of the batch with the model in inference mode, calls the model in training
mode on the natural and then on the changed images, and weighs the robust term by the lambda of the controller.
`forward` attacks labelled rows of an evaluation; prediction and export are those of `ImageApp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.adversarial_training.attacks.ball import Ball
from appzoo.adversarial_training.attacks.gradient import Attacked, projected_gradient
from appzoo.adversarial_training.attacks.names import NamedAttack, named_attack
from appzoo.adversarial_training.attacks.noise import NumberedDraws, normal_noise
from appzoo.adversarial_training.attacks.objectives import objective
from appzoo.adversarial_training.attacks.report import Protocol, RobustnessReport
from appzoo.adversarial_training.attacks.run import attacked
from appzoo.adversarial_training.config import AdversarialTrainingConfig
from appzoo.adversarial_training.controller import LambdaController, controller_of
from appzoo.adversarial_training.robustness import RobustnessEvaluator
from appzoo.image_app import ImageApp
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.labels import LabelTarget, SingleLabel
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.distributed.strategy import backend
from easytransfer.errors import ConfigError
from easytransfer.image.augment import unit_scale
from easytransfer.layers.draws import RowDraws
from easytransfer.losses.adversarial import excess_rows, kl_rows
from easytransfer.run.log import quiet
from easytransfer.train.precision import compiles
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, TrainingStep
from easytransfer.train.task import Batch, Outputs

# Classes the difference of logits ratio needs.
_RATIO_CLASSES = 3


class NumberedLabel(SingleLabel):
    """A class per row, and as `row_number` the number of the row, which decides where attacks in evaluation start."""

    encoded_columns: ClassVar[tuple[str, ...]] = ("label_id", "row_number")

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id` and `row_number`, int32 [batch]."""
        labels = super().encode(chunk, inputs).columns
        return Encoded({**labels, "row_number": chunk.index.astype(np.int32)})


class AdversarialTraining(ImageApp):
    """TRADES or adversarial training with PGD, the weight of the robust term fixed, by width, or adjusted (WAR)."""

    takes_numbers: ClassVar[bool] = False
    label_class = NumberedLabel
    config: AdversarialTrainingConfig

    controller: LambdaController | None = None
    _rows: int | None = None

    # Preparation ---------------------------------------------------------------------------------------------

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes, and finds the attack of evaluations.

        Raises:
            ConfigError: The task has no classes, or too few for an attack.
        """
        target = super().build_target(assets)
        target.require_classes("adversarial_training")
        chosen = self.config.adversarial
        self.ball = Ball(chosen.norm, chosen.epsilon)
        self.eval_attack = None if chosen.eval_attack == "none" else _usable(chosen.eval_attack, target.num_outputs)
        return target

    def on_train_table(self, train: EncodedTable) -> None:
        """Computes statistics, and notes the size of the table for the course of lambda."""
        super().on_train_table(train)
        self._rows = len(train)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network and, for training, the controller of lambda."""
        network = super().build_network(assets)
        if self._rows is not None:
            self._check_exchange()
            train, elastic = self.config.train, self.config.distribution.min_workers > 0
            workers = self.config.distribution.worker_count if elastic else self.workers.replicas
            batches = -(-self._rows // (train.batch_size * workers))
            with nullcontext() if self.workers.is_chief else quiet():
                self.controller = controller_of(self.config, batches / train.num_accumulated_batches)
        return network

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns the one for all weights, all of which are decayed, as by the optimizer of the paper's code."""
        return {"default": OptimizerPart(self.model.trainable_variables, no_decay=())}

    def _check_exchange(self) -> None:
        """Refuses WAR where risks cannot be summed over all rows of a batch."""
        if self.config.adversarial.adv_lambda_mode != "war":
            return
        mirrored = backend(self.config.distribution) == "mirrored"
        if mirrored or (self.workers.size > 1 and compiles(self.config.runtime)):
            raise ConfigError(
                "adv_lambda_mode=war needs the risks of all rows of a batch",
                received="distributionStrategy=mirrored" if mirrored else "several workers and a compiled step",
                fix="use horovod without enable_xla and bfloat16, or one worker",
            )

    # Training ------------------------------------------------------------------------------------------------

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns augmented images and the noise that their attack starts with."""
        changed = super().training_batch(batch, draws)
        noise = self.config.adversarial.start_deviation * normal_noise(changed["image"], draws)
        return {**changed, "start_noise": noise}

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Attacks the batch, then takes the gradient of natural risk + lambda * robust risk.

        Batch normalisation sees two batches, natural then changed: together their statistics would mix.
        """
        images, labels, weight = batch["image"], batch["label_id"], batch["example_weight"]
        changed = self.inner_attack(images, labels, batch["start_noise"]).images
        strength = self.controller.value()
        with tf.GradientTape() as tape:
            outputs = self.forward(batch, training=True)
            adversarial = self.forward({**batch, "image": changed}, training=True)
            natural, rows = super().losses(batch, outputs, step)["loss"]
            robust = tf.reduce_sum(weight * self.robust_rows(labels, outputs["logits"], adversarial["logits"]))
            losses = {"natural_loss": Loss(natural, rows), "weighted_robust_loss": Loss(strength * robust, rows)}
            total = step.objective(losses)
        step.update(tape.gradient(total, step.variables()))
        sums = tf.stack([natural, robust, rows])
        if not compiles(self.config.runtime):
            sums = self.workers.sum_replicas(sums, "risks")
        self.controller.update(sums, step.number)
        return losses

    def inner_attack(self, images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor) -> Attacked:
        """Attacks images as in training.

        Args:
            images: float32 from 0 to 1, [batch, height, width, channels].
            labels: Class ids, int [batch].
            noise: Added to the images at the start, same shape.
        """
        chosen = self.config.adversarial
        goal = objective("kl" if chosen.adv_method == "trades" else "ce", self.logits, labels, images)
        start, steps = images + noise, chosen.attack_steps
        return projected_gradient(goal, images, self.ball, start=start, steps=steps, step_size=chosen.step_size)

    def robust_rows(self, labels: tf.Tensor, natural: tf.Tensor, adversarial: tf.Tensor) -> tf.Tensor:
        """Returns the robust term of each row without lambda, [batch]; gradients reach both logits [batch, classes]."""
        if self.config.adversarial.adv_method == "trades":
            return kl_rows(natural, adversarial)
        return excess_rows(labels, natural, adversarial)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Returns logits [batch, classes] for float32 images from 0 to 1, the model in inference mode."""
        return super().forward({"image": images}, training=False)["logits"]

    # Evaluation ----------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model; labelled rows outside of training are attacked too."""
        outputs = super().forward(batch, training)
        if training or self.eval_attack is None or "row_number" not in batch:
            return outputs
        return {**outputs, **self._under_attack(batch, outputs["logits"])}

    def _under_attack(self, batch: Batch, natural: tf.Tensor) -> Outputs:
        """Returns what `RobustnessEvaluator` reads: logits under its attack; steepness, risk under that of training."""
        images = unit_scale(batch["image"]) if batch["image"].dtype == tf.uint8 else batch["image"]
        labels, draws = batch["label_id"], NumberedDraws(0, batch["row_number"])
        noise = self.config.adversarial.start_deviation * normal_noise(images, draws)
        inner = self.inner_attack(images, labels, noise)
        step_size = self.config.adversarial.eval_step_size
        outer = attacked(self.eval_attack, self.logits, images, labels, self.ball, draws, step_size)
        return {
            "adversarial_logits": self.logits(outer.images),
            "steepness": inner.steepness,
            "robust_risk": self.robust_rows(labels, natural, self.logits(inner.images)),
        }

    def evaluator(self) -> RobustnessEvaluator:
        """Returns natural and robust metrics; after a training step also lambda."""
        trained = self.controller is not None and self.controller.batches
        facts = {"adv_lambda": float(self.controller.value())} if trained else None
        return RobustnessEvaluator(self.target.labels.names, attacked=self.eval_attack is not None, facts=facts)

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Returns the robustness report of the first rows, where one is asked for."""
        chosen = self.config.robustness
        if not chosen.report_rows:
            return {}
        attacks = [_usable(name, self.target.num_outputs).name for name in chosen.report_attacks]
        norm, size = self.config.adversarial.norm, self.config.train.eval_batch_size
        protocol = Protocol(norm, chosen.epsilon(norm), attacks, chosen.report_factors, size)
        columns = [encoded.columns[name][: chosen.report_rows] for name in ("image", "label_id", "row_number")]
        return {"robustness": RobustnessReport(self.logits, *columns, protocol).measure()}

    # Resuming ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Returns lambda and the running risks."""
        return {} if self.controller is None else self.controller.state()

    def restore_state(self, state: dict[str, Any]) -> None:
        """Takes back what `state` returned."""
        if self.controller is not None and state:
            self.controller.restore(state)


def _usable(name: str, classes: int) -> NamedAttack:
    attack = named_attack(name)
    if "dlr" in attack.losses and classes < _RATIO_CLASSES:
        fix = name.replace("dlr", "ce") if "dlr" in name else name.replace("apgd", "apgd_ce")
        raise ConfigError(f"attack {name} needs {_RATIO_CLASSES} classes, there are {classes}", fix=f"use {fix}")
    return attack


VARIANTS = {"": AdversarialTraining}
