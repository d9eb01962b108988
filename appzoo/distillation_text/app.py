"""Distillation of text classifiers: a small network learns from the answers, and the layers, of a large one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from appzoo.distillation_text.config import CnnDistillationConfig, EncoderDistillationConfig
from appzoo.distillation_text.labeling import LabelingStudent
from appzoo.distillation_text.losses import attention_loss, hidden_loss
from appzoo.distillation_text.network import TEACHER_PROBES, Extras, StudentModel
from appzoo.distilled_label import TEACHER_LOGITS
from appzoo.encoder import token_batch
from appzoo.layer_map import attended_pairs, layer_pairs
from appzoo.layer_probes import probed
from appzoo.pooled_app import PooledApp
from appzoo.student_encoder import StudentEncoder
from appzoo.taught_app import TaughtClassifier
from appzoo.teacher_outputs import outputs_of_machine
from appzoo.text_cnn_app import TextCnnApp
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.losses.distillation import kd_rows, layer_at_height
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.train.stages import TrainingStage
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

EXTRAS_FILE = "distillation.json"
# What layers of the teacher compute, among the outputs of a training.
TEACHER_STATES, TEACHER_ATTENTIONS = "teacher_hidden_states", "teacher_attentions"
PROBE_STAGE, LAYER_STAGE, STUDENT_STAGE = TEACHER_PROBES, "layers", "student"


class Distilled(TaughtClassifier):
    """A classifier of one text or a pair with a teacher, which is no part of `model`: never trained, saved or exported.

    Reference: Hinton et al., https://arxiv.org/abs/1503.02531. With a teacher, labelled rows come with what it says of
    them as outputs: `teacher_logits`, and what its layers compute where they are compared.
    """

    purpose = "distillation"

    config: EncoderDistillationConfig | CnnDistillationConfig

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Asks the teacher about the training table where its answers are cached, once on every machine."""
        if self.teacher is None or self.config.distillation.kd_teacher_logits != "cached":
            return
        train.columns[TEACHER_LOGITS] = outputs_of_machine(self.teacher.frozen, train, self.config, run_dir, workers)

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns the student's `logits` and, for labelled rows, the `teacher_logits` of its teacher."""
        outputs = super().forward(batch, training)
        if self.teacher is None or "label_id" not in batch:
            return outputs
        given = batch.get(TEACHER_LOGITS)
        return {**outputs, TEACHER_LOGITS: self.teacher(batch)["logits"] if given is None else given}

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of the labels and the distance to the teacher, with their factors in.

        With kd_loss=mse these are 1 and alpha, with xent and kld b and 1 - b. Both are divided by all rows: one without
        label has the second alone.
        """
        if self.teacher is None:
            return super().losses(batch, outputs, step)
        settings = self.config.distillation
        labels, weight = super().losses(batch, outputs, step)["loss"]
        found = {"ce_loss": Loss(settings.hard_factor * labels, weight)}
        if settings.kd_loss != "none":
            soft = self.soft_sum(batch, outputs[TEACHER_LOGITS], outputs["logits"])
            found["kd_loss"] = Loss(soft, tf.reduce_sum(batch["example_weight"]))
        return found

    def soft_sum(self, batch: Batch, teacher_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the distance of logits [batch, classes] to a teacher's, summed over rows, with its factor in."""
        settings = self.config.distillation
        rows = kd_rows(teacher_logits, logits, settings.kd_loss, settings.kd_temperature)
        return settings.soft_factor * tf.reduce_sum(rows * batch["example_weight"])


class CnnStudent(Distilled, TextCnnApp):
    """Convolutions over the words of one text, from random weights."""

    config: CnnDistillationConfig


class EncoderStudent(Distilled, PooledApp):
    """An encoder of few layers with a dense layer on its pooled first token; one text or a pair."""

    config: EncoderDistillationConfig
    model: StudentModel

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns one text, or a packed pair; the tokenizer is that of the pre-trained encoder."""
        self.encoder = StudentEncoder(self.config, assets.folder)
        return [self.encoder.tokens(self.config.data.first_sequence, self.config.data.second_sequence)]

    def open_frozen(self) -> dict[str, Frozen]:
        """Opens the teacher, and makes sure that its layers fit where they are looked at.

        Raises:
            ConfigError: There is none, or the map of layers or the number of heads does not fit it.
            ModelError: It is not usable or does not fit.
        """
        found, settings = super().open_frozen(), self.config.distillation
        if settings.looks_inside:
            self._check_inside()
        return found

    def _check_inside(self) -> None:
        settings, ours, theirs = self.config.distillation, self.encoder.config, self.teacher.model.backbone.config
        if not settings.compares_layers:
            return
        self.teacher.check_tokens()
        self.pairs = layer_pairs(settings.layer_map, ours.num_hidden_layers, theirs.num_hidden_layers)
        if settings.attention_weight:
            heads = ours.num_attention_heads, theirs.num_attention_heads
            self.attended = attended_pairs(self.pairs, settings.layer_map, *heads)

    def save_assets(self, folder: Path) -> None:
        """Writes what a pooled application does, and which projections and probes its checkpoints hold."""
        super().save_assets(folder)
        write_json(folder / EXTRAS_FILE, self._extras().facts())

    def _extras(self) -> Extras:
        settings = self.config.distillation
        if self.teacher is None or not settings.looks_inside:
            return Extras()
        ours, theirs = self.encoder.config, self.teacher.model.backbone.config
        width = theirs.hidden_size if settings.hidden_weight and theirs.hidden_size != ours.hidden_size else 0
        if not settings.probes:
            return Extras(width)
        return Extras(width, ours.num_hidden_layers, theirs.num_hidden_layers + 1, theirs.hidden_size)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head, and what only the training needs."""
        extras = self._extras()
        if assets.folder is not None:
            extras = Extras(**RunFolder(assets.folder).read_json(EXTRAS_FILE))
        backbone = self.encoder.backbone(assets.folder, self.workers)
        network = StudentModel(backbone, self.target.num_outputs, self.config.model.dropout_rate, extras)
        network(token_batch())
        return network

    # Training ------------------------------------------------------------------------------------------------

    def stages(self) -> list[TrainingStage]:
        """Returns the trainings of the teacher's probes and of the student's layers, where there are any, and its own.

        Layers first and answers then are the two steps of TinyBERT's task distillation (arXiv 1909.10351, section 3.2).
        """
        settings, model, found = self.config.distillation, self.model, []
        others = model.trainable_variables
        if settings.probes:
            probes, rate = model.teacher_probes.trainable_variables, {"learning_rate": settings.probe_learning_rate}
            found.append(TrainingStage(PROBE_STAGE, epochs=settings.probe_epochs, trains=probes, settings=rate))
            others = _without(others, probes)
        if settings.layer_epochs is not None:
            *depths, _ = model.backbone.layer_groups()
            projections = [v for part in model.projections() for v in part.trainable_variables]
            own = settings.layer_learning_rate
            found.append(
                TrainingStage(
                    LAYER_STAGE,
                    epochs=settings.layer_epochs,
                    trains=[*(variable for depth in depths for variable in depth), *projections],
                    settings={} if own is None else {"learning_rate": own},
                )
            )
            others = _without(others, projections)
        return [*found, TrainingStage(STUDENT_STAGE, trains=others)] if found else super().stages()

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns logits, and for labelled rows what the layers of both networks compute where that is compared."""
        settings = self.config.distillation
        if self.teacher is None or "label_id" not in batch or not settings.looks_inside:
            return super().forward(batch, training)
        attentions = bool(settings.attention_weight)
        ours = self.model.with_states(batch, training, attentions)
        theirs = self.teacher.inside(batch, attentions)
        return {**ours, **{f"teacher_{name}": value for name, value in theirs.items()}}

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses of answers, layers and probes; in the stages of probes and of layers those of them alone.

        Where layers have a stage, those behind it and evaluations leave them out.
        """
        settings = self.config.distillation
        if self.teacher is None or not settings.looks_inside:
            return super().losses(batch, outputs, step)
        if step.stage == PROBE_STAGE:
            logits = self.model.teacher_probes(self._teacher_probed(batch, outputs))
            return {"probe_loss": Loss(self._labels_sum(batch, logits), self.target.loss_weight(batch))}
        if step.stage == LAYER_STAGE:
            return self._layer_losses(batch, outputs)
        found = super().losses(batch, outputs, step)
        if settings.layer_epochs is None:
            found |= self._layer_losses(batch, outputs)
        return found | self._probe_losses(batch, outputs) if settings.probes else found

    def _layer_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Returns the distances of outputs and attentions, their weights in."""
        settings, found = self.config.distillation, {}
        token_weight = tf.cast(batch["input_mask"], tf.float32) * batch["example_weight"][:, tf.newaxis]
        if settings.hidden_weight:
            ours = [self.model.projected(outputs["hidden_states"][:, i], i) for i, _ in self.pairs]
            theirs = [outputs[TEACHER_STATES][:, j] for _, j in self.pairs]
            found["hidden_loss"] = _scaled(hidden_loss(ours, theirs, token_weight), settings.hidden_weight)
        if settings.attention_weight:
            ours = [outputs["attentions"][:, i - 1] for i, _ in self.attended]
            theirs = [outputs[TEACHER_ATTENTIONS][:, j - 1] for _, j in self.attended]
            found["attention_loss"] = _scaled(attention_loss(ours, theirs, token_weight), settings.attention_weight)
        return found

    def _probe_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Returns what the student's probes below the last layer learn from the teacher's; the last is its answer."""
        below = outputs["hidden_states"][:, :-1]
        ours = self.model.student_probes(probed(self.model.backbone, below, batch["input_mask"]))
        theirs = self.model.teacher_probes(self._teacher_probed(batch, outputs))
        student, teacher = ours.shape[1], theirs.shape[1] - 1
        pairs = [(i, layer_at_height(i, student, teacher)) for i in range(student)]
        soft = tf.add_n([self.soft_sum(batch, theirs[:, j], ours[:, i]) for i, j in pairs])
        found = {"probe_kd_loss": Loss(soft, tf.reduce_sum(batch["example_weight"]))}
        if self.config.distillation.kd_loss != "mse":
            hard = self.config.distillation.hard_factor * self._labels_sum(batch, ours)
            found["probe_ce_loss"] = Loss(hard, self.target.loss_weight(batch))
        return found

    def _labels_sum(self, batch: Batch, logits: tf.Tensor) -> tf.Tensor:
        """Returns the cross entropy of the labels with logits [batch, probes, classes], summed over rows and probes."""
        labels, weight = batch["label_id"], batch["example_weight"]
        return tf.add_n([self.target.loss_sum(labels, each, weight) for each in tf.unstack(logits, axis=1)])

    def _teacher_probed(self, batch: Batch, outputs: Outputs) -> tf.Tensor:
        mask = self.teacher.arrays(batch)["input_mask"]
        return probed(self.teacher.model.backbone, outputs[TEACHER_STATES], mask)


def _scaled(loss: Loss, factor: float) -> Loss:
    return Loss(factor * loss.sum, loss.weight)


def _without(variables: Sequence[tf.Variable], left_out: Sequence[tf.Variable]) -> list[tf.Variable]:
    ids = {id(variable) for variable in left_out}
    return [variable for variable in variables if id(variable) not in ids]


VARIANTS: dict[str, Any] = {"bert": EncoderStudent, "cnn": CnnStudent, "labeling": LabelingStudent}
