"""Transfer of a text classifier from source domains, which have many labels, to a target domain, which has few."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow as tf

from appzoo.domain_transfer.config import DomainTransferConfig
from appzoo.domain_transfer.losses import domain_rows, importance, reversed_gradient, rising
from appzoo.domain_transfer.network import TransferModel
from appzoo.domain_transfer.sampler import Stream, StreamSampler
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
from easytransfer.errors import ConfigError
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, Step, TrainingStep
from easytransfer.train.task import Batch

# Which rows each algorithm learns from; the first ones make the epochs. Where `unlabelled` stands, it is left out if
# there are none.
_ROWS = {
    "source_only": ("source",),
    "target_only": ("target",),
    "joint": ("source", "target"),
    "dann": ("source", "target", "unlabelled"),
    "reweight": ("source", "target", "unlabelled"),
}
# Those that need no label of the target domain.
_UNSUPERVISED = ("dann", "reweight")
# Those that tell the domains of rows apart.
_DISCRIMINATES = ("dann", "reweight")


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
        settings = self.config.transfer
        units = settings.domain_units if settings.algorithm in _DISCRIMINATES else 0
        backbone = self.encoder.backbone(assets.folder, self.workers)
        network = TransferModel(backbone, self.target.num_outputs, self.config.model.dropout_rate, units)
        network(token_batch())
        return network

    def sampler(self, train: EncodedTable) -> StreamSampler:
        """Returns what makes batches of the rows that the algorithm learns from.

        Raises:
            ConfigError: There are none of a kind that it needs.
        """
        settings = self.config.transfer
        algorithm = settings.algorithm
        labels, domain = (np.asarray(train.columns[name]) for name in self.target.encoded_columns)
        streams = {
            "source": Stream("source", np.flatnonzero(domain == SOURCE), 1.0),
            "target": Stream(
                "labelled target", np.flatnonzero((domain == TARGET) & (labels >= 0)), settings.target_share
            ),
            "unlabelled": Stream("unlabelled target", np.flatnonzero(labels < 0), settings.unlabelled_share),
        }
        names = [name for name in _ROWS[algorithm] if name == "source" or len(streams[name].rows)]
        if "target" in _ROWS[algorithm] and "target" not in names and algorithm not in _UNSUPERVISED:
            raise ConfigError(
                f"transfer.algorithm={algorithm} needs labelled rows of the target domain, and trainTable has none",
                fix=f"add some, or set transfer.algorithm to {', '.join(_UNSUPERVISED)} or source_only",
            )
        if names == ["source"] and algorithm != "source_only":
            raise ConfigError(f"transfer.algorithm={algorithm} needs rows of the target domain, and there are none")
        if "source" in names and not len(streams["source"].rows):
            raise ConfigError(
                f"transfer.algorithm={algorithm} needs rows of source domains, and there are none",
                fix="give --sourceTable, or set transfer.algorithm=target_only",
            )
        return StreamSampler([streams[name] for name in names], self.config.runtime.seed)

    # Training ------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns that of encoder and head, and that of the discriminator."""
        model = self.model
        found = {"default": OptimizerPart([*model.backbone.trainable_variables, *model.head.trainable_variables])}
        if model.discriminator is not None:
            rate = {"learning_rate": self.config.transfer.domain_learning_rate}
            found["domain"] = OptimizerPart(model.discriminator.trainable_variables, rate)
        return found

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Learns classes and, where the algorithm does, domains."""
        names = list(self.optimizers())
        with tf.GradientTape() as tape:
            losses = self.training_losses(batch, self.model.features(batch, training=True), step)
            objective = step.objective(losses, *names)
        variables = [step.variables(name) for name in names]
        for name, gradients in zip(names, tape.gradient(objective, variables), strict=True):
            step.update(gradients, name)
        return losses

    def training_losses(self, batch: Batch, features: tf.Tensor, step: Step) -> Losses:
        """Returns the losses of a training batch: `loss` of the labels, `domain_loss` of the domains.

        Args:
            batch: Rows of all streams.
            features: What the head reads of them, [batch, hidden].
            step: Where the training is.
        """
        settings, weight = self.config.transfer, batch["example_weight"]
        logits, rows = self.model.head(features), weight
        domains: Losses = {}
        if self.model.discriminator is not None:
            if settings.algorithm == "dann":
                factor = settings.domain_weight * rising(step.number / step.total)
                seen = reversed_gradient(features, factor)
            else:
                seen = tf.stop_gradient(features)
            domain_logits = self.model.discriminator(seen)
            each = domain_rows(domain_logits, batch["domain"])
            domains["domain_loss"] = Loss(tf.reduce_sum(each * weight), tf.reduce_sum(weight))
            if settings.algorithm == "reweight":
                is_source = tf.cast(batch["domain"] == SOURCE, tf.float32)
                rows *= importance(domain_logits, is_source * weight, settings.weight_limit)
        total = self.target.loss_sum(batch["label_id"], logits, rows)
        return {"loss": Loss(total, self.target.loss_weight(batch)), **domains}


VARIANTS = {"": DomainTransfer}
