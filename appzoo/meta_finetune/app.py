"""Meta fine-tuning: an encoder learns a task in several domains at once, before it is fine-tuned on each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf

from appzoo.domain_label import DomainLabel, domain_target
from appzoo.encoder import token_batch
from appzoo.meta_finetune.config import MetaFinetuneConfig
from appzoo.meta_finetune.network import MetaModel
from appzoo.pooled_app import PooledApp
from appzoo.typicality import TYPICALITY, add_typicality
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.losses.distillation import layer_at_height
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

CORRUPTED = "corrupted_domain"


class MetaFinetune(PooledApp):
    """A pre-trained encoder with a dense layer on its pooled first token, for rows of several domains.

    Reference: Wang et al., Meta Fine-Tuning Neural Language Models for Multi-Domain Text Mining, EMNLP 2020
    (https://arxiv.org/abs/2003.13003).
    """

    splits: ClassVar[tuple[str, ...]] = ()

    config: MetaFinetuneConfig
    target: DomainLabel
    model: MetaModel

    # Preparation ---------------------------------------------------------------------------------------------

    def build_target(self, assets: Assets) -> DomainLabel:
        """Returns classes and domains, those of the training table.

        Raises:
            ConfigError: There are no classes, or fewer than two domains.
        """
        return domain_target(self.config, assets, "meta fine-tuning")

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head, and the classifiers of domains.

        Raises:
            ConfigError: `model.domain_layers` names a layer that the encoder does not have.
        """
        backbone, model = self.encoder.backbone(assets.folder, self.workers), self.config.model
        outputs, domains = self.target.num_outputs, len(self.target.domains)
        network = MetaModel(backbone, outputs, model.dropout_rate, self._domain_layers(), domains)
        network(token_batch())
        return network

    def _domain_layers(self) -> list[int]:
        there, given = self.encoder.config.num_hidden_layers, self.config.model.domain_layers
        if not self.config.model.domain_weight:
            return []
        if given is None:
            return sorted({layer_at_height(i, 4, there) for i in (1, 2, 3, 4)})
        if not given or max(given) > there or len(set(given)) < len(given):
            raise ConfigError(
                "model.domain_layers names a layer twice, or one that is not there",
                received=", ".join(map(str, given)) or "none",
                accepted=f"numbers from 1 to {there}, each once",
                fix="correct the list, or leave it out",
            )
        return sorted(given)

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Adds the column `typicality`, the weight of each row; the encoder sees the table once on every machine."""
        if not self.config.model.use_typicality:
            return
        backbone, name = self.encoder.backbone(None, ONE_WORKER), self.config.model.pretrain_model_name_or_path
        add_typicality(train, self.target, backbone, self.specs(), str(name), self.config, run_dir, workers)

    # Training ------------------------------------------------------------------------------------------------

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the batch with a corrupted domain for each row, drawn anew: of the domains as they are frequent."""
        return {**super().training_batch(batch, draws), CORRUPTED: self.target.corrupted(draws)}

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns `logits`, and for rows with a domain the `domain_logits` of the classifiers of domains."""
        if self.model.domain_classifiers is None or "domain_id" not in batch:
            return super().forward(batch, training)
        return self.model.with_domains(batch, training)

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of the classes, each row by its typicality, and that of the corrupted domains.

        Outside of the training rows count alike, and the corrupted domain is each one with its share.
        """
        rows = batch["example_weight"]
        weight = rows * batch[TYPICALITY] if TYPICALITY in batch else rows
        total = self.target.loss_sum(batch["label_id"], outputs["logits"], weight)
        found = {"ce_loss": Loss(total, self.target.loss_weight(batch))}
        if "domain_logits" in outputs:
            corrupted = batch.get(CORRUPTED)
            if corrupted is None:
                shares = self.target.shares
                corrupted = tf.broadcast_to(tf.constant(shares), [tf.shape(rows)[0], len(shares)])
            wanted = tf.broadcast_to(corrupted[:, tf.newaxis], tf.shape(outputs["domain_logits"]))
            each = tf.nn.softmax_cross_entropy_with_logits(wanted, outputs["domain_logits"])
            value = self.config.model.domain_weight * tf.reduce_sum(tf.reduce_mean(each, axis=1) * rows)
            found["domain_loss"] = Loss(value, tf.reduce_sum(rows))
        return found


VARIANTS: dict[str, Any] = {"": MetaFinetune}
