"""Spherical knowledge distillation: a small image network learns the direction of a large one's logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.distillation_skd import spherical
from appzoo.distillation_skd.alpha import AlphaSchedule
from appzoo.distillation_skd.config import DistillationSkdConfig
from appzoo.distillation_skd.metrics import DistillationEvaluator
from appzoo.distillation_skd.target import StudentLabel
from appzoo.distillation_skd.teacher import ROLE, Teacher, open_teacher
from appzoo.image_app import ImageApp, mixed_parts
from appzoo.teacher_outputs import teacher_logits
from easytransfer.app.contract import Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.errors import ConfigError, EasyTransferError, ModelError
from easytransfer.run.atomic import write_json
from easytransfer.run.log import say, warn
from easytransfer.train.resume import another_network
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

DISTILLATION_FILE = "distillation.json"
# Methods that rescale logits, and what `rescaled_pair` calls them.
_SPHERICAL: dict[str, spherical.Variant] = {"skd_ln": "layer_norm", "skd_std": "teacher_std", "skd_l2": "l2"}
_SOME_STUDENTS = ("resnet8_w8_cifar", "resnet20_cifar", "mobilenet_v2_cifar")
# On fewer classes centred logits lie on a line: their direction says no more than a label.
_FEWEST_CLASSES = 3


class DistillationSkd(ImageApp):
    """A student trained with alpha * distillation loss + (1 - alpha) * cross entropy, both on rescaled logits.

    Reference: Guo et al., https://arxiv.org/abs/2010.07485. The teacher is no part of `model`, so it is neither trained
    nor saved nor exported. `forward` returns its logits as `teacher_logits` while the application has one.
    """

    asset_files: ClassVar[tuple[str, ...]] = (*ImageApp.asset_files, DISTILLATION_FILE)

    takes_numbers: ClassVar[bool] = False
    config: DistillationSkdConfig
    teacher: Teacher | None = None
    # What normalised logits are multiplied by; known after `on_train_table`, or from a folder.
    multiplier: float | None = None

    # Preparation ---------------------------------------------------------------------------------------------

    def label_class(self, labels: LabelMap) -> StudentLabel:
        """Returns what answers with the logits at the scale they were trained at."""
        return StudentLabel(labels, self.served)

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes; those of a run come with its multiplier.

        Raises:
            ConfigError: The student is not named, or there are too few classes.
        """
        if assets.folder is None and self.config.model.network is None:
            raise ConfigError(
                "the network of the student is not named",
                received="model.network=None",
                accepted=f"a name such as {', '.join(_SOME_STUDENTS)}, see easy_transfer_app profile --list",
                fix=f"add --set model.network={_SOME_STUDENTS[0]}, or another network smaller than the teacher's",
            )
        settings = self.config.distillation
        self.alpha = AlphaSchedule.parse(settings.kd_alpha_schedule)
        self.method, self.variant = settings.kd_method, _SPHERICAL.get(settings.kd_method)
        target = super().build_target(assets)
        self._check_classes(target)
        if assets.folder is not None:
            self.multiplier = _stored(assets.folder)["multiplier"]
        return target

    def open_frozen(self) -> dict[str, Frozen]:
        """Opens the teacher.

        Raises:
            ConfigError: There is none.
            ModelError: It is not usable or does not fit.
        """
        if self.method == "none":
            return {}
        if self.config.distillation.teacher is None:
            raise ConfigError(
                f"distillation.kd_method={self.method} needs a teacher",
                fix="give the run folder of one with --teacher=RUN, or use kd_method=none",
            )
        self.teacher = self._open_teacher()
        if self.variant and not self.config.train.gradient_clip:
            warn("without gradient_clip the first steps can be huge: gradients grow as the student's logits shrink")
        return {ROLE: self.teacher.frozen}

    def _check_classes(self, target: LabelTarget) -> None:
        target.require_classes("distillation")
        if self.variant and target.num_outputs < _FEWEST_CLASSES:
            raise ConfigError(
                f"distillation.kd_method={self.method} means nothing with {target.num_outputs} classes: only the "
                "sign of the logits would be left",
                accepted=f"{_FEWEST_CLASSES} classes or more",
                fix="use kd_method=kd or kd_method=none",
            )

    def _open_teacher(self) -> Teacher:
        path, rows = str(self.config.distillation.teacher), self.config.train.eval_batch_size
        return open_teacher(path, self.target.labels.names, self.config.model, rows)

    def on_train_table(self, train: EncodedTable) -> None:
        """Measures the multiplier on the training images as they are; a cached teacher's logits become a column."""
        super().on_train_table(train)
        settings = self.config.distillation
        self.multiplier = settings.kd_multiplier if self.variant else None
        measured, cached = bool(self.variant) and self.multiplier is None, settings.kd_teacher_logits == "cached"
        if self.teacher is None or not (measured or cached):
            return
        logits = teacher_logits(self.teacher.frozen, train, self.config.train.eval_batch_size)
        if cached:
            train.columns["teacher_logits"] = logits
        if measured:
            size = spherical.length if self.variant == "l2" else spherical.deviation
            self.multiplier = float(np.mean(size(logits).numpy(), dtype=np.float64))
            what = "length" if self.variant == "l2" else "standard deviation"
            say(f"multiplier {self.multiplier:.4f}: mean {what} of the teacher's logits of {len(logits):,} images")

    def save_assets(self, folder: Path) -> None:
        """Writes what an image application does, and the multiplier."""
        super().save_assets(folder)
        settings = self.config.distillation
        facts = {"kd_method": self.method, "multiplier": self.multiplier, "teacher": settings.teacher}
        write_json(
            folder / DISTILLATION_FILE, {**facts, "measured": bool(self.variant) and settings.kd_multiplier is None}
        )

    def state(self) -> dict[str, Any]:
        """Returns the multiplier, the same on all workers and after a resume."""
        return {"multiplier": self.multiplier}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Takes the multiplier of the first worker, or of the run that is resumed.

        Raises:
            ConfigError: That one is from an earlier version, which kept the hash of the teacher's weights here, and has
                another teacher.
        """
        now = self.frozen_records().get(ROLE, {})
        if state.get("teacher") and state["teacher"] != now.get("weights"):
            raise another_network(ROLE, str(self.config.distillation.teacher))
        self.multiplier = state["multiplier"]

    # Training ------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns the student's `logits` and, for labelled rows, the `teacher_logits` of its teacher."""
        outputs = super().forward(batch, training)
        if self.teacher is None or "label_id" not in batch:
            return outputs
        given = batch.get("teacher_logits")
        return {**outputs, "teacher_logits": self.teacher(batch["image"]) if given is None else given}

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns both terms with their alpha in, summed over rows; outside of training with the last alpha."""
        if self.method == "none":
            return super().losses(batch, outputs, step)
        student, teacher = self._compared(outputs["logits"], outputs["teacher_logits"])
        alpha = self.alpha.in_graph(step.number, step.total) if step.training else self.alpha.last
        temperature = self.config.distillation.kd_temperature
        hard, weight = super().losses(batch, {**outputs, "logits": student}, step)["loss"]
        soft = spherical.divergence_sum(teacher, student, temperature, self._row_weights(batch))
        return {"kd_loss": Loss(alpha * soft, weight), "ce_loss": Loss((1 - alpha) * hard, weight)}

    def _compared(
        self, logits: tf.Tensor, teacher_logits: tf.Tensor, epsilon: float = spherical.TRAINING_EPSILON
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the logits of student and teacher that the losses see."""
        if self.variant is None:
            return logits, tf.stop_gradient(teacher_logits)
        return spherical.rescaled_pair(self.variant, logits, teacher_logits, self.multiplier, epsilon)

    def _row_weights(self, batch: Batch) -> tf.Tensor:
        """Returns what each row counts in the loss, [batch]."""
        weights = self.target.class_weights
        if weights is None:
            return batch["example_weight"]
        parts = mixed_parts(batch) if "own_share" in batch else [batch]
        return tf.add_n([part["example_weight"] * tf.gather(weights, part["label_id"]) for part in parts])

    # Results -------------------------------------------------------------------------------------------------

    def served(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the logits whose softmax is answered: at the scale they were trained at, see `kd_probabilities`."""
        if self.variant is None or self.config.distillation.kd_probabilities == "raw":
            return logits
        scaled = spherical.at_unit_length if self.variant == "l2" else spherical.on_sphere
        return self.multiplier * scaled(logits, spherical.VALIDATION_EPSILON)

    def evaluator(self) -> DistillationEvaluator:
        """Returns the metrics; those that need the teacher are left out where it cannot be read."""
        if self.teacher is None:
            self.teacher = self._teacher_if_there()
        teacher, rows = self.teacher, self.config.train.eval_batch_size

        def pair(student: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = self._compared(tf.constant(student), tf.constant(target), spherical.VALIDATION_EPSILON)
            return found[0].numpy(), found[1].numpy()

        return DistillationEvaluator(
            self.target.labels.names,
            lambda logits: np.asarray(self.served(logits)),
            pair,
            None if teacher is None else lambda images: teacher.over(images, rows),
        )

    def _teacher_if_there(self) -> Teacher | None:
        if self.method == "none" or self.config.distillation.teacher is None:
            return None
        try:
            return self._open_teacher()
        except EasyTransferError as error:
            warn(f"metrics that compare with the teacher are left out: {error}")
            return None


def _stored(folder: Path) -> dict[str, Any]:
    path = folder / DISTILLATION_FILE
    try:
        return {"multiplier": json.loads(path.read_text(encoding="utf-8"))["multiplier"]}
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is not readable: {error!r}", fix="give a folder that distillation_skd wrote"
        ) from None


VARIANTS = {"": DistillationSkd}
