"""Divide and Co-training: several small networks in place of a large one, which learn from each other.

Zhao et al., "Towards Better Accuracy-efficiency Trade-offs: Divide and Co-training", IEEE TIP 2022, arXiv 2011.14660.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import tensorflow as tf

from appzoo.co_training.config import CoTrainingConfig
from appzoo.co_training.ensemble import Ensemble
from appzoo.co_training.losses import jensen_shannon, pairwise_divergence, weight_of_epoch
from appzoo.co_training.metrics import EnsembleEvaluator
from appzoo.image_app import ImageApp, ImageModel
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.distributed.shards import Shard, mark_shard
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, Step, TrainingStep
from easytransfer.train.task import Batch, Outputs
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig

MEMBERS_FILE = "members.json"
# Seeds of the members; so far apart that runs with neighbouring seeds share none.
SEED_STEP = 1_000_003
# Families whose scales of batch normalisation are not decayed either, as in the paper's code.
_SCALES_NOT_DECAYED = ("densenet", "efficientnet")


class CoTraining(ImageApp):
    """The members' cross entropies, each on its own view, and a divergence that pulls their predictions together."""

    asset_files: ClassVar[tuple[str, ...]] = (*ImageApp.asset_files, MEMBERS_FILE)
    # Tensor-parallel workers compute one network each.
    splits: ClassVar[tuple[str, ...]] = ("tensor",)

    takes_numbers: ClassVar[bool] = False
    config: CoTrainingConfig
    model: Ensemble

    def __init__(self, config: CoTrainingConfig) -> None:
        super().__init__(config)
        self.views = config.model.count if config.model.views == "different" else 1

    # The networks --------------------------------------------------------------------------------------------

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes.

        Raises:
            ConfigError: The task has none.
        """
        target = super().build_target(assets)
        target.require_classes("co-training")
        return target

    def network_configs(self, folder: Path | None = None) -> list[CnnConfig]:
        """Returns the shapes of the members that the configuration names, or of those stored in `folder`."""
        if folder is None:
            return self.config.model.networks()
        return [CnnConfig.from_dict(stored) for stored in RunFolder(folder).read_json(MEMBERS_FILE)]

    def network_config(self, folder: Path | None = None) -> CnnConfig:
        """Returns the shape of the first member."""
        return self.network_configs(folder)[0]

    def save_assets(self, folder: Path) -> None:
        """Also writes the shapes of all members."""
        super().save_assets(folder)
        write_json(folder / MEMBERS_FILE, [config.to_dict() for config in self.network_configs()])

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the members, each from a seed of its own, or the shapes stored in a run."""
        model, members = self.config.model, []
        images = tf.zeros([1, *model.image_shape], tf.uint8)
        for number, config in enumerate(self.network_configs(assets.folder)):
            seed = self.config.runtime.seed + SEED_STEP * number
            if assets.folder is None:
                network = self.start_network(model.member_names()[number], config, seed)
            else:
                network = CnnBackbone(config, self.target.num_outputs, seed)
            members.append(ImageModel(network, self._known_statistics()))
            members[-1]({"image": images})
            if self.workers.tensor is not None:
                for variable in members[-1].weights:
                    mark_shard(variable, Shard(self.workers.tensor, owner=number))
        group = self.workers.tensor if self.workers.tensor is not None and self.workers.tensor.size > 1 else None
        return Ensemble(members, model.ensemble, group, answers_with=model.export_member)

    # Training ------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns one for weights, decayed by the paper's rule (equation 6), and one for biases and offsets."""
        lists: dict[str, list[tf.Variable]] = {"default": [], "not_decayed": []}
        for member in self.model.members:
            family = member.network.config.family
            kept = ("bias", "beta", "gamma") if family in _SCALES_NOT_DECAYED else ("bias", "beta")
            for variable in member.trainable_variables:
                decayed = variable.name.split(":")[0].rpartition("/")[2] not in kept
                lists["default" if decayed else "not_decayed"].append(variable)
        decay = {"default": self._divided_decay(), "not_decayed": 0.0}
        return {
            name: OptimizerPart(variables, {"weight_decay_ratio": decay[name]}, no_decay=())
            for name, variables in lists.items()
            if variables
        }

    def _divided_decay(self) -> float:
        model, decay = self.config.model, self.config.train.weight_decay_ratio
        return decay * (math.exp(1 / model.count - 1) if model.weight_decay_division == "exp" else 1.0)

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the ensemble; rows without labels are answered by the one member that is to be exported, if any."""
        if training or "label_id" in batch:
            return super().forward(batch, training)
        return self.model.compiled_part(batch, training=False)

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Computes one step of all members, whose variables two optimizers share."""
        names = list(self.optimizers())
        with tf.GradientTape() as tape:
            losses = self.losses(batch, self.forward(batch, training=True), step)
            objective = step.objective(losses, *names)
        gradients = tape.gradient(objective, [step.variables(name) for name in names])
        for name, given in zip(names, gradients, strict=True):
            step.update(given, name)
        return losses

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy, summed over rows and members, and the weighted divergence, summed over rows.

        In training the divergence has the weight of the epoch. Both are divided by the weight of the rows.
        """
        model, logits, count = self.config.model, outputs["member_logits"], self.config.model.count
        rows = {name: batch[name] for name in ("label_id", "partner_label_id", "own_share", "example_weight")
                if name in batch}  # fmt: skip
        each = {name: tf.repeat(value, count, axis=0) for name, value in rows.items()}
        total = super().losses(each, {"logits": tf.reshape(logits, [-1, logits.shape[-1]])}, step)["loss"].sum
        row_weight = self._row_weight(batch)
        weight = tf.reduce_sum(row_weight)
        losses = {"loss": Loss(total, weight)}
        if count == 1 or not model.agreement_weight:
            return losses
        divergence = jensen_shannon(logits) if model.agreement == "js" else pairwise_divergence(logits)
        agreement = model.agreement_weight
        if step.training:
            agreement = weight_of_epoch(step.epoch, agreement, model.agreement_warmup_epochs)
        return {**losses, "agreement": Loss(agreement * tf.reduce_sum(divergence * row_weight), weight)}

    def _row_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the weight of each row in the loss, [batch]."""
        if self.target.class_weights is None:
            return batch["example_weight"]
        factor = tf.gather(self.target.class_weights, batch["label_id"])
        if "own_share" in batch:
            share, partner = batch["own_share"], tf.gather(self.target.class_weights, batch["partner_label_id"])
            factor = share * factor + (1 - share) * partner
        return batch["example_weight"] * factor

    # Results -------------------------------------------------------------------------------------------------

    def evaluator(self) -> EnsembleEvaluator:
        """Returns the metrics of the ensemble and of each member."""
        return EnsembleEvaluator(self.target.labels.names)


VARIANTS = {"": CoTraining}
