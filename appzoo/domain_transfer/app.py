"""Transfer of a text classifier from source domains, which have many labels, to a target domain, which has few."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf

from appzoo.domain_transfer.config import UNSUPERVISED, DomainTransferConfig
from appzoo.domain_transfer.losses import domain_rows, importance, relation, reversed_gradient, rising
from appzoo.domain_transfer.network import TransferModel
from appzoo.domain_transfer.sampler import Stream, StreamSampler
from appzoo.domain_transfer.selection import gains, likeness, policy_loss, standardised, states
from appzoo.domain_transfer.target import SOURCE, TARGET, DomainLabel
from appzoo.encoder import token_batch
from appzoo.pooled_app import PooledApp
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.targets.labels import label_target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.files import expand
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ConfigError, DataError
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, Step, TrainingStep
from easytransfer.train.task import Batch


class DomainTransfer(PooledApp):
    """An encoder with a dense layer on its pooled first token, trained on rows of several domains for one of them."""

    splits: ClassVar[tuple[str, ...]] = ()

    config: DomainTransferConfig
    target: DomainLabel
    model: TransferModel

    # Preparation ---------------------------------------------------------------------------------------------

    def build_target(self, assets: Assets) -> DomainLabel:
        """Returns the classes, and for a training which file is of which domain.

        Raises:
            ConfigError: There are no classes, or the tables do not say of which domain a row is.
        """
        target = label_target(self.config, assets, DomainLabel, numbers=False)
        target.require_classes("domain transfer")
        if assets.folder is None:
            self._assign_files(target)
        return target

    def _assign_files(self, target: DomainLabel) -> None:
        data = self.config.data
        if data.input_schema and is_id_table(parse_schema(data.input_schema)):
            raise ConfigError("tables of token ids do not say of which domain a row is", fix="give tables of texts")
        files = {
            "sourceTable": set(expand(data.source_table)) if data.source_table else set(),
            "trainTable": set(expand(data.train_table)) if data.train_table else set(),
            "evalTable": set(expand(data.eval_table)) if data.eval_table else set(),
        }
        for first, second in (("sourceTable", "trainTable"), ("trainTable", "evalTable"), ("sourceTable", "evalTable")):
            if both := files[first] & files[second]:
                raise ConfigError(
                    f"a table is in {first} and in {second}",
                    received=sorted(both)[0],
                    fix="give rows of the target domain in trainTable and evalTable, each in one of them",
                )
        target.source_files, target.target_files = files["sourceTable"], files["trainTable"]

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head, and what only the training needs."""
        backbone = self.encoder.backbone(assets.folder, self.workers)
        network = TransferModel(backbone, self.target.num_outputs, self.config.model.dropout_rate, self.config.transfer)
        network(token_batch())
        return network

    def on_train_table(self, train: EncodedTable) -> None:
        """Looks at the training tables, as the target does.

        Raises:
            DataError: That of the target domain has no row.
        """
        if not (np.asarray(train.columns["domain"]) == TARGET).any():
            raise DataError(
                f"training table {self.config.data.train_table} is empty: it has no row of the target domain",
                fix="check the table and its bad-row report",
            )
        super().on_train_table(train)

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Holds labelled rows of the target back where an algorithm measures its reward on them.

        Raises:
            ConfigError: There are fewer than two.
        """
        settings = self.config.transfer
        if "held" not in settings.streams:
            return
        labels, domain = (np.asarray(train.columns[name]) for name in self.target.encoded_columns)
        rows = np.flatnonzero((domain == TARGET) & (labels >= 0))
        if len(rows) < 2:
            raise ConfigError(
                f"transfer.algorithm={settings.algorithm} learns from one half of the labelled rows of the target and "
                f"measures its reward on the other, and trainTable has {len(rows)} of them",
                fix=f"add some, or set transfer.algorithm to {', '.join(UNSUPERVISED)} or source_only",
            )
        held = np.zeros(len(labels), np.float32)
        count = min(max(1, round(len(rows) * settings.held_rows)), len(rows) - 1)
        random = np.random.Generator(np.random.PCG64(self.config.runtime.seed % 2**63))
        held[random.permutation(rows)[:count]] = 1
        train.columns["held"] = held

    def sampler(self, train: EncodedTable) -> StreamSampler:
        """Returns what makes batches of the rows that the algorithm learns from.

        Raises:
            ConfigError: There are none of a kind that it needs.
        """
        settings = self.config.transfer
        algorithm, wanted = settings.algorithm, settings.streams
        labels, domain = (np.asarray(train.columns[name]) for name in self.target.encoded_columns)
        held = np.asarray(train.columns["held"]) > 0 if "held" in wanted else np.zeros(len(labels), bool)
        rows = {
            "source": domain == SOURCE,
            "target": (domain == TARGET) & (labels >= 0) & ~held,
            "held": held,
            "unlabelled": labels < 0,
        }
        names = [name for name in wanted if name == "source" or rows[name].any()]
        if "target" in wanted and "target" not in names and algorithm not in UNSUPERVISED:
            raise ConfigError(
                f"transfer.algorithm={algorithm} needs labelled rows of the target domain, and trainTable has none",
                fix=f"add some, or set transfer.algorithm to {', '.join(UNSUPERVISED)} or source_only",
            )
        if names == ["source"] and algorithm != "source_only":
            raise ConfigError(f"transfer.algorithm={algorithm} needs rows of the target domain, and there are none")
        if "source" in names and not rows["source"].any():
            raise ConfigError(
                f"transfer.algorithm={algorithm} needs rows of source domains, and there are none",
                fix="give --sourceTable, or set transfer.algorithm=target_only",
            )
        streams = [Stream(name, np.flatnonzero(rows[name]), wanted[name]) for name in names]
        return StreamSampler(streams, self.config.runtime.seed)

    # Training ------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns that of encoder and head, and those of discriminator and selector."""
        model, settings = self.model, self.config.transfer
        found = {"default": OptimizerPart([*model.backbone.trainable_variables, *model.head.trainable_variables])}
        for name, part, rate in (
            ("domain", model.discriminator, settings.domain_learning_rate),
            ("selector", model.selector, settings.selection_learning_rate),
        ):
            if part is not None:
                found[name] = OptimizerPart(part.trainable_variables, {"learning_rate": rate})
        return found

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Learns classes and, where the algorithm does, domains and which rows to keep."""
        names = list(self.optimizers())
        with tf.GradientTape() as tape:
            losses = self.training_losses(batch, self.model.features(batch, training=True), step)
            objective = step.objective(losses, *names)
        variables = [step.variables(name) for name in names]
        for name, gradients in zip(names, tape.gradient(objective, variables), strict=True):
            step.update(gradients, name)
        return losses

    def training_losses(self, batch: Batch, features: tf.Tensor, step: Step) -> Losses:
        """Returns the losses of a training batch: those of labels, and those of the algorithm.

        Args:
            batch: Rows of all streams.
            features: What the head reads of them, float32 [batch, hidden].
            step: Where the training is.
        """
        algorithm = self.config.transfer.algorithm
        if algorithm == "drss":
            return self._related(batch, features, step)
        # Rows that are held back teach nothing.
        learnt = batch["example_weight"] * (1 - batch["held"] if "held" in batch else 1)
        logits, rows = self.model.head(features), learnt
        further: Losses = {}
        if algorithm in ("rtl", "mgtl"):
            kept, further = self._selected(batch, features, logits, step)
            rows *= tf.where(batch["domain"] == SOURCE, kept, 1.0)
        elif algorithm == "dann":
            further["domain_loss"], _ = self._told_apart(batch, reversed_gradient(features, self._rise(step)))
        elif algorithm == "reweight":
            further["domain_loss"], told = self._told_apart(batch, tf.stop_gradient(features))
            source = tf.cast(batch["domain"] == SOURCE, tf.float32) * learnt
            rows *= importance(told, source, self.config.transfer.weight_limit)
        total = self.target.loss_sum(batch["label_id"], logits, rows)
        return {"loss": Loss(total, self.target.loss_weight({**batch, "example_weight": learnt})), **further}

    def _rise(self, step: Step) -> tf.Tensor:
        """Returns what the reversed gradient is multiplied by."""
        return self.config.transfer.domain_weight * rising(step.number / step.total)

    def _told_apart(self, batch: Batch, features: tf.Tensor) -> tuple[Loss, tf.Tensor]:
        """Returns the loss of the discriminator on features [batch, width], and its logits [batch]."""
        weight, logits = batch["example_weight"], self.model.discriminator(features)
        each = domain_rows(logits, batch["domain"])
        return Loss(tf.reduce_sum(each * weight), tf.reduce_sum(weight)), logits

    def _related(self, batch: Batch, features: tf.Tensor, step: Step) -> Losses:
        """Returns the losses of DRSS: of either domain's labels, of its output weights, of the domains."""
        head, weight = self.model.head, batch["example_weight"]
        logits, shared = head.of_domains(features)
        found: Losses = {}
        for name, number in (("source_loss", SOURCE), ("target_loss", TARGET)):
            rows = weight * tf.cast(batch["domain"] == number, tf.float32)
            total = self.target.loss_sum(batch["label_id"], logits[:, number], rows)
            found[name] = Loss(total, self.target.loss_weight({**batch, "example_weight": rows}))
        count = tf.reduce_sum(weight)
        found["relation_loss"] = Loss(self.config.transfer.relation_weight * relation(head.columns) * count, count)
        found["domain_loss"], _ = self._told_apart(batch, reversed_gradient(shared, self._rise(step)))
        return found

    def _selected(self, batch: Batch, features: tf.Tensor, logits: tf.Tensor, step: Step) -> tuple[tf.Tensor, Losses]:
        """Returns which rows are kept, 0 or 1 float32 [batch], and the losses of those who decide it."""
        model, settings, weight = self.model, self.config.transfer, batch["example_weight"]
        source = tf.cast(batch["domain"] == SOURCE, tf.float32) * weight
        labels, count = tf.maximum(batch["label_id"], 0), tf.reduce_sum(source)
        state = states(features, logits, labels)
        keeps = model.selector.policy(state)
        drawn = step.draws.uniform(settings.selection_draws)
        actions = tf.cast(drawn < tf.sigmoid(keeps)[:, tf.newaxis], tf.float32)
        kept, held = actions * source[:, tf.newaxis], batch["held"] * weight
        reward = gains(features, labels, model.head.kernel, model.head.bias, kept, source, held, settings.reward_step)
        found: Losses = {}
        if settings.algorithm == "rtl":
            expected = model.selector.expected(state, source)
            advantage = reward - expected
            found["critic_loss"] = Loss(tf.reduce_mean(tf.square(advantage)) * count, count)
        else:
            told = model.discriminator(tf.stop_gradient(features))
            advantage = standardised(reward) + settings.likeness_weight * standardised(likeness(told, kept))
            # Of the source rows only those that are kept.
            seen = weight - source + kept[:, 0]
            found["domain_loss"] = Loss(tf.reduce_sum(domain_rows(told, batch["domain"]) * seen), tf.reduce_sum(weight))
        found["policy_loss"] = Loss(policy_loss(keeps, actions, source, advantage), count)
        return kept[:, 0], found


VARIANTS = {"": DomainTransfer}
