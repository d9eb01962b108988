"""Meta-distillation: a teacher learns a task in several domains, a small network learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.discovery import find_application
from appzoo.domain_label import domain_target
from appzoo.encoder import Encoder, token_batch
from appzoo.layer_map import attended_pairs, layer_pairs
from appzoo.meta_distillation.config import MetaDistillationConfig
from appzoo.meta_distillation.losses import attention_rows, expertise, hidden_rows, transfer_rows
from appzoo.meta_distillation.network import TEACHER_SCOPE, MetaStudent, MetaTeacher
from appzoo.meta_distillation.sampler import RowSampler
from appzoo.meta_distillation.target import TEACHER_LOGITS, MetaLabel
from appzoo.pooled_app import PooledApp
from appzoo.student_encoder import StudentEncoder
from appzoo.typicality import TYPICALITY, add_typicality
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.frozen import Frozen, resolved
from easytransfer.app.inputs.base import Input
from easytransfer.data.batches import Sampler
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.losses.distillation import kd_rows
from easytransfer.run.atomic import write_json
from easytransfer.train.stages import TrainingStage
from easytransfer.train.step import Loss, Losses, Step, TrainingStep
from easytransfer.train.task import Batch, Outputs

ROLE = "teacher"
TEACHER_STAGE, LAYER_STAGE, ANSWER_STAGE = "meta_teacher", "layers", "answers"
# Folder of a run with the sizes of its meta-teacher; an export needs none.
TEACHER_FOLDER = "meta_teacher"
CORRUPTED = "corrupted_domain"


class MetaDistillation(PooledApp):
    """A student with a dense layer on its pooled first token, and its meta-teacher of several domains.

    Reference: Pan et al., Meta-KD: A Meta Knowledge Distillation Framework for Language Model Compression across
    Domains, ACL 2021 (https://arxiv.org/abs/2012.01266). The meta-teacher is part of `model`: it is trained first, and
    in checkpoints, but in no export.
    """

    splits: ClassVar[tuple[str, ...]] = ()

    config: MetaDistillationConfig
    target: MetaLabel
    model: MetaStudent
    # The application of another run, whose meta-teacher is taken.
    given: MetaDistillation | None = None

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns one text, or a packed pair, which student and meta-teacher both read.

        Raises:
            ConfigError: They have other vocabularies.
        """
        self.is_new = assets.folder is None
        self.encoder = StudentEncoder(self.config, assets.folder)
        columns = self.config.data.first_sequence, self.config.data.second_sequence
        tokens = self.encoder.tokens(*columns)
        if self.is_new and self.config.distillation.teacher is None:
            self.teacher_encoder = self._starts_from(self.config)
            if self.teacher_encoder.tokens(*columns).meaning() != tokens.meaning():
                raise ConfigError(
                    "model.teacher_encoder has another vocabulary than the student: equal ids are other words",
                    received=self.config.model.teacher_encoder,
                    fix="take one of the vocabulary of model.pretrain_model_name_or_path, or leave it out",
                )
        return [tokens]

    def _starts_from(self, config: MetaDistillationConfig) -> Encoder:
        """Returns the pre-trained encoder that the meta-teacher of a run starts from."""
        model = config.model
        changes = {
            "pretrain_model_name_or_path": model.teacher_encoder or model.pretrain_model_name_or_path,
            "from_scratch": False,
        }
        return Encoder(self.config.model_copy(update={"model": model.model_copy(update=changes)}), None)

    def build_target(self, assets: Assets) -> MetaLabel:
        """Returns classes, and domains: those of the given meta-teacher or of the training table.

        Raises:
            ConfigError: There are no classes, or fewer than two domains.
            ModelError: The run that is given has no domains.
        """
        path = self.config.distillation.teacher
        folder = resolved(path, ROLE).parent if self.is_new and path is not None else None
        return domain_target(self.config, assets, "meta-distillation", MetaLabel, folder)

    def open_frozen(self) -> dict[str, Frozen]:
        """Opens the run whose meta-teacher is taken, where there is one, and makes sure that layers can be compared.

        Raises:
            ConfigError: The map of layers or the number of heads does not fit the teacher.
            ModelError: The run is not usable or does not fit.
        """
        found, path = {}, self.config.distillation.teacher
        if path is not None:
            found[ROLE] = Frozen.open(path, find_application, ROLE, inputs=self.inputs)
            self.given = self._checked(found[ROLE])
        self._check_layers()
        return found

    def _checked(self, frozen: Frozen) -> MetaDistillation:
        app = frozen.app
        if frozen.record["kind"] == "export" or not isinstance(app, MetaDistillation):
            raise ModelError(
                f"{frozen.place} holds no meta-teacher",
                received=f"{frozen.record['kind']} of {frozen.record['model_name']}",
                accepted="a run of meta_distillation",
            )
        if app.target.names != self.target.names:
            raise ModelError(
                f"{frozen.place} has other labels, or in another order",
                received=app.target.labels.describe(),
                accepted=self.target.labels.describe(),
                fix="list them as it has them in label_enumerate_values, or take another one",
            )
        limit = app.model.teacher.backbone.config.max_tokens
        if self.config.data.sequence_length > limit:
            raise ConfigError(
                f"sequenceLength exceeds the positions of {frozen.place}",
                received=self.config.data.sequence_length,
                accepted=f"at most {limit}",
            )
        return app

    @property
    def _teacher_config(self) -> Any:
        """Sizes of the meta-teacher of a new run."""
        return self.teacher_encoder.config if self.given is None else self.given.model.teacher.backbone.config

    def _check_layers(self) -> None:
        settings, ours, theirs = self.config.distillation, self.encoder.config, self._teacher_config
        if not settings.compares_layers:
            return
        self.pairs = layer_pairs(settings.layer_map, ours.num_hidden_layers, theirs.num_hidden_layers)
        if settings.attention_weight:
            heads = ours.num_attention_heads, theirs.num_attention_heads
            self.attended = attended_pairs(self.pairs, settings.layer_map, *heads)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the student and its meta-teacher."""
        backbone, rate = self.encoder.backbone(assets.folder, self.workers), self.config.model.dropout_rate
        domains, outputs = len(self.target.domains), self.target.num_outputs
        if self.given is not None:
            teacher = self.given.model.teacher
        else:
            with tf.name_scope(TEACHER_SCOPE):
                teacher = MetaTeacher(self._teacher_backbone(assets.folder), outputs, rate, domains)
                teacher(token_batch())
        network = MetaStudent(backbone, outputs, rate, teacher, domains)
        network(token_batch())
        return network

    def _teacher_backbone(self, folder: Path | None) -> Any:
        if folder is None:
            return self.teacher_encoder.backbone(None, ONE_WORKER)
        return self.encoder.backbone(folder / TEACHER_FOLDER, ONE_WORKER)

    def save_assets(self, folder: Path) -> None:
        """Writes what a pooled application does, and for a new run the sizes of its meta-teacher."""
        super().save_assets(folder)
        if self.is_new:
            (folder / TEACHER_FOLDER).mkdir(exist_ok=True)
            write_json(folder / TEACHER_FOLDER / Encoder.CONFIG_FILE, self._teacher_config.to_dict())

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Adds the column `typicality`, told by the encoder that the meta-teacher starts from."""
        if not self.config.distillation.use_typicality:
            return
        encoder = self.teacher_encoder if self.given is None else self._starts_from(self.given.config)
        backbone, name = encoder.backbone(None, ONE_WORKER), encoder.job.model.pretrain_model_name_or_path
        add_typicality(train, self.target, backbone, self.specs(), str(name), self.config, run_dir, workers)

    def sampler(self, train: EncodedTable) -> Sampler | None:
        """Returns what makes batches of the rows of `distillation.student_domain`, None where all are learnt from.

        Raises:
            ConfigError: There are none.
        """
        name = self.config.distillation.student_domain
        if name is None:
            return None
        found = self.target.domains.id_of(name)
        rows = np.flatnonzero(np.asarray(train.columns["domain_id"]) == (-1 if found is None else found))
        if not len(rows):
            raise ConfigError(
                "the training table has no row of distillation.student_domain",
                received=name,
                accepted=", ".join(self.target.domains.names),
            )
        return RowSampler(rows, self.config.runtime.seed)

    # Training ------------------------------------------------------------------------------------------------

    def stages(self) -> list[TrainingStage]:
        """Returns the training of a meta-teacher where none is given, of the student's layers, and of its answers."""
        settings, model, found = self.config.distillation, self.model, []
        if self.given is None:
            rate, variables = settings.teacher_learning_rate, model.teacher.trainable_variables
            found.append(TrainingStage(TEACHER_STAGE, settings.teacher_epochs, trains=variables, settings=_rate(rate)))
        *depths, pooler = model.backbone.layer_groups()
        below = [variable for depth in depths for variable in depth]
        if settings.looks_inside:
            parts = [variable for part in model.compared_parts() if part is not None for variable in part.variables]
            rate, variables = settings.layer_learning_rate, [*below, *parts]
            found.append(TrainingStage(LAYER_STAGE, settings.layer_epochs, trains=variables, settings=_rate(rate)))
        answering = [*below, *pooler, *model.head.trainable_variables]
        return [*found, TrainingStage(ANSWER_STAGE, trains=answering)]

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the batch with a corrupted domain for each row where a meta-teacher is trained."""
        found = super().training_batch(batch, draws)
        return found if self.given is not None else {**found, CORRUPTED: self.target.corrupted(draws)}

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns the student's `logits`, and for labelled rows the `teacher_logits` of its meta-teacher."""
        outputs = super().forward(batch, training)
        return outputs if "label_id" not in batch else {**outputs, **self._taught(batch, ANSWER_STAGE)}

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Trains the meta-teacher, or the student on what the meta-teacher, which stays as it is, says of the batch."""
        taught = {} if step.stage == TEACHER_STAGE else self._taught(batch, step.stage)
        with tf.GradientTape() as tape:
            losses = self.losses(batch, {**self._learnt(batch, step.stage, True), **taught}, step)
            objective = step.objective(losses)
        step.update(tape.gradient(objective, step.variables()))
        return losses

    def _taught(self, batch: Batch, stage: str | None) -> Outputs:
        """Returns what the meta-teacher says in a stage of the student, under names with `teacher_`, no gradients."""
        teacher = self.model.teacher
        layers = stage == LAYER_STAGE
        found = teacher.inside(batch, False, self._attends) if layers else teacher(batch)
        return {f"teacher_{name}": tf.stop_gradient(tf.cast(value, tf.float32)) for name, value in found.items()}

    def _learnt(self, batch: Batch, stage: str | None, training: bool) -> Outputs:
        """Returns the outputs of the network that a stage trains."""
        if stage == TEACHER_STAGE:
            found = self.model.teacher.inside(batch, training, attentions=False)
            return {TEACHER_LOGITS: found["logits"], "domain_logits": found["domain_logits"]}
        if stage == LAYER_STAGE:
            return self.model.inside(batch, training, self._attends)
        return super().forward(batch, training)

    @property
    def _attends(self) -> bool:
        return bool(self.config.distillation.attention_weight)

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses of the stage, each row by its weight; outside of the training that of answers, rows alike.

        Meta-KD, section 3: in its first stage the meta-teacher has the mean of t_i (CE(class) + domain_weight
        CE(corrupted domain)); then distances of layers, and at last of answers, are multiplied by `expertise`.
        """
        rows, settings = batch["example_weight"], self.config.distillation
        count = tf.reduce_sum(rows)
        typical = batch[TYPICALITY] if TYPICALITY in batch else tf.ones_like(rows)
        if step.stage == TEACHER_STAGE:
            total = self.target.loss_sum(batch["label_id"], outputs[TEACHER_LOGITS], rows * typical)
            found = {"ce_loss": Loss(total, self.target.loss_weight(batch))}
            if settings.domain_weight:
                each = tf.nn.softmax_cross_entropy_with_logits(batch[CORRUPTED], outputs["domain_logits"])
                found["domain_loss"] = Loss(settings.domain_weight * tf.reduce_sum(each * rows * typical), count)
            return found
        weight = rows
        if step.stage is not None:
            weight = rows * expertise(outputs[TEACHER_LOGITS], batch["label_id"], typical)
        if step.stage == LAYER_STAGE:
            each = self._layer_rows(outputs, batch["input_mask"])
        else:
            each = {"kd_loss": kd_rows(outputs[TEACHER_LOGITS], outputs["logits"], "xent", settings.kd_temperature)}
        return {name: Loss(tf.reduce_sum(values * weight), count) for name, values in each.items()}

    def _layer_rows(self, outputs: Outputs, input_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the distances of each row, their factors in: those of embeddings, layers, attentions, domains."""
        settings, found = self.config.distillation, {}
        if settings.hidden_weight:
            ours, theirs = outputs["hidden_states"], outputs["teacher_hidden_states"]
            for name, pairs in (
                ("embedding_loss", [pair for pair in self.pairs if pair == (0, 0)]),
                ("hidden_loss", [pair for pair in self.pairs if pair != (0, 0)]),
            ):
                if pairs:
                    each = hidden_rows(
                        [self.model.projected(ours[:, i], i) for i, _ in pairs],
                        [theirs[:, j] for _, j in pairs],
                        input_mask,
                    )
                    found[name] = settings.hidden_weight * each
        if settings.attention_weight:
            ours, theirs = outputs["attentions"], outputs["teacher_attentions"]
            pairs = [(ours[:, i - 1], theirs[:, j - 1]) for i, j in self.attended]
            found["attention_loss"] = settings.attention_weight * attention_rows(
                [a for a, _ in pairs], [b for _, b in pairs], input_mask
            )
        if settings.transfer_weight:
            each = transfer_rows(outputs["domain_representation"], outputs["teacher_domain_representation"])
            found["transfer_loss"] = settings.transfer_weight * each
        return found


def _rate(rate: float | None) -> dict[str, float]:
    return {} if rate is None else {"learning_rate": rate}


VARIANTS: dict[str, Any] = {"": MetaDistillation}
