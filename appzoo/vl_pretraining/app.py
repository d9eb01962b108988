"""Vision-language pre-training: words, regions and labels that were hidden, and which texts and images belong together.

FashionBERT: Gao et al. 2020, "FashionBERT: Text and Image Matching with Adaptive Loss for Cross-modal Retrieval", arXiv
2005.09801. LAMP: Guo et al. 2020, "LAMP: Label Augmented Multimodal Pretraining", arXiv 2012.04446.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from appzoo.vision_language_app import VisionLanguageApp, VisionLanguageEncoder
from appzoo.vl_pretraining.config import FashionBertConfig, LampConfig
from appzoo.vl_pretraining.hiding import PairHider
from appzoo.vl_pretraining.label_names import NAME_FILES, LabelNames
from appzoo.vl_pretraining.labels import LabelHider, LabelRates
from appzoo.vl_pretraining.losses import adaptive_weights
from appzoo.vl_pretraining.network import PretrainNetwork
from appzoo.vl_pretraining.other_images import figures_of_other_images
from appzoo.vl_pretraining.regions import RegionHider
from appzoo.vl_pretraining.signatures import tensors_signature
from appzoo.vl_pretraining.target import PairTarget
from appzoo.vl_pretraining.tasks import Tasks
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.region_labels import LabelMaker
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.strategy import backend
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.savedmodel.signature import Signature
from easytransfer.text.hiding import WordHider
from easytransfer.train.precision import compiles
from easytransfer.train.step import Loss, Losses, TrainingStep
from easytransfer.train.task import Batch, Outputs
from modelzoo.loading import family_module
from modelzoo.vision_language.heads import VisionLanguageHeads


class VlPretraining(VisionLanguageApp):
    """A network that guesses what was hidden of texts and images, anew in every step, and alike in evaluations.

    A subclass says which regions are hidden and what labels there are.
    """

    config: FashionBertConfig | LampConfig
    target: PairTarget
    hider: PairHider

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the text and the regions of the image, and makes what hides parts of them."""
        self.tasks = Tasks.of(self.config)
        self.encoder = VisionLanguageEncoder(self.config, assets.folder, **self.network_changes(assets))
        maker = self.label_maker()
        data, model, tokenizer = self.config.data, self.config.model, self.encoder.tokenizer
        length = data.sequence_length
        words = WordHider(
            tokenizer,
            share=model.mlm_probability,
            most=model.max_predictions or max(1, round(2 * model.mlm_probability * length)),
            max_length=length,
            whole_word=model.whole_word,
            independent=True,
        )
        self.hider = PairHider(
            tokenizer,
            words,
            self.region_hider(),
            self.label_hider(maker),
            max_length=length,
            other_texts=model.other_texts,
            unmatched=model.unmatched,
            seed=self.config.runtime.seed,
        )
        regions = self.encoder.regions(classes=bool(self.classes), labels=maker)
        return [self.encoder.tokens(str(data.first_sequence)), regions]

    def build_target(self, assets: Assets) -> PairTarget:
        """Returns what is learnt."""
        model, data = self.config.model, self.config.data
        return PairTarget(
            self.tasks,
            self.encoder.tokenizer,
            data.sequence_length,
            other_texts=model.other_texts,
            group_column=data.group_column,
            seed=self.config.runtime.seed,
            image_column=data.image_column,
            classes=self.classes,
        )

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds network and heads; from the ModelZoo, or the shape stored in a run."""
        model, runtime = self.config.model, self.config.runtime
        backbone = self.encoder.backbone(assets.folder, self.workers)
        kind = _heads_of(backbone.family.name)
        if assets.folder is not None or model.from_scratch:
            head = kind(backbone.config, self.tasks.heads, runtime.seed)
        else:
            head = kind.from_preset(
                model.pretrain_model_name_or_path,
                backbone.config,
                self.tasks.heads,
                zoo=runtime.model_zoo_base_path,
                allow_missing=model.allow_missing,
                seed=runtime.seed,
            )
        network = PretrainNetwork(backbone, head, self.tasks)
        network(self.hider.fixed(self.smallest_batch()))
        return network

    # What differs between the two ------------------------------------------------------------------------------

    def network_changes(self, assets: Assets) -> dict[str, Any]:
        """Returns changed values of the network's configuration."""
        return {}

    def region_hider(self) -> RegionHider:
        """Returns what hides regions."""
        raise NotImplementedError

    @property
    def classes(self) -> dict[str, int]:
        """How many classes of regions there are by the names of their arrays; empty where none are read."""
        return {}

    def label_maker(self) -> LabelMaker | None:
        """Returns what makes labels of regions."""
        return None

    def label_hider(self, maker: LabelMaker | None) -> LabelHider | None:
        """Returns what hides labels."""
        return None

    # Training --------------------------------------------------------------------------------------------------

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:
        """Refuses adaptive weights where losses cannot be summed over all rows of a step."""
        mirrored = backend(self.config.distribution) == "mirrored"
        compiled = workers.size > 1 and compiles(self.config.runtime)
        if self.tasks.adaptive and (mirrored or compiled):
            raise ConfigError(
                "model.loss_weighting=adaptive needs the losses of all rows of a step",
                received="distributionStrategy=mirrored" if mirrored else "several workers and a compiled step",
                fix="use horovod without enable_xla and bfloat16, one worker, or model.loss_weighting=sum",
            )

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the batch hidden by numbers of this step."""
        return self.hider.hide(super().training_batch(batch, draws), draws)

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model; what no training has hidden is hidden first."""
        return super().forward(batch if "match_label" in batch else self.hider.fixed(batch), training)

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Makes a step with weighted losses; the log has them without their weights."""
        with tf.GradientTape() as tape:
            losses = self.losses(batch, self.forward(batch, training=True), step)
            weights = self._adaptive(losses) if self.tasks.adaptive else list(self.tasks.weights.values())
            weighted = {
                name: Loss(loss.sum * weight, loss.weight)
                for (name, loss), weight in zip(losses.items(), weights, strict=True)
            }
            objective = step.objective(weighted)
        step.update(tape.gradient(objective, step.variables()))
        return losses

    def _adaptive(self, losses: Losses) -> list[tf.Tensor]:
        """Returns weights by the losses of all rows of the step, those of other workers too."""
        both = tf.stack([[loss.sum for loss in losses.values()], [loss.weight for loss in losses.values()]])
        both = tf.stop_gradient(both)
        if not compiles(self.config.runtime):
            both = self.workers.sum_replicas(both, "losses")
        return tf.unstack(adaptive_weights(tf.math.divide_no_nan(both[0], both[1])))

    # Beside the network ----------------------------------------------------------------------------------------

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Measures labels again with the images of other rows, see `figures_of_other_images`."""
        if not self.tasks.has_labels:
            return {}
        return {"labels_with_other_images": figures_of_other_images(self, encoded)}

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns also `tensors`: the network without heads."""
        found = super().signatures(folder)
        return {**found, "tensors": tensors_signature(self.model, self.hider, found["predict_ids"])}


class FashionBert(VlPretraining):
    """Patches in their order, of which so many are hidden; losses that weigh themselves."""

    config: FashionBertConfig

    def region_hider(self) -> RegionHider:
        """Returns what hides patches."""
        return RegionHider(self.encoder.config.max_regions, exactly=self.config.model.masked_image_token_num)


class Lamp(VlPretraining):
    """Regions with the classes of a detector, whose names stand beside the text as labels."""

    config: LampConfig
    names: LabelNames
    asset_files = NAME_FILES

    def save_assets(self, folder: Path) -> None:
        """Writes also the names of classes."""
        super().save_assets(folder)
        self.names.save(folder)

    def network_changes(self, assets: Assets) -> dict[str, Any]:
        """Returns the numbers of classes and of labels."""
        data, model = self.config.data, self.config.model
        if assets.folder is not None:
            self.names = LabelNames.load(assets.folder)
            return {}
        self.names = LabelNames.read(data.object_names, data.attribute_names)
        if self.tasks.has_labels and data.object_names is None:
            raise ConfigError(
                f"model.labels={model.labels} needs the names of the classes of objects",
                fix="name their file in data.object_names, or set model.labels=none",
            )
        changes = {"num_object_labels": len(self.names.objects), "num_attr_labels": len(self.names.attributes)}
        if self.tasks.has_labels:
            changes |= {"label_slots": model.label_slots}
        found: dict[str, Any] = {name: value for name, value in changes.items() if value}
        return found | ({"label_link": "box"} if model.label_link == "box" else {})

    def region_hider(self) -> RegionHider:
        """Returns what hides regions."""
        return RegionHider(self.encoder.config.max_regions, self.config.model.region_probability)

    @property
    def classes(self) -> dict[str, int]:
        """How many objects and attributes there are, where they are predicted or become labels."""
        if not self.config.model.classes and not self.tasks.has_labels:
            return {}
        config = self.encoder.config
        return {"object_id": config.num_object_labels, "attribute_id": config.num_attr_labels}

    def label_maker(self) -> LabelMaker | None:
        """Returns what makes labels of classes that are sure enough."""
        model, linked = self.config.model, getattr(self.encoder.config, "label_link", "none")
        if not self.tasks.has_labels:
            return None
        if linked != model.label_link:
            raise ConfigError(
                f"the network to start from was built with label_link={linked}",
                received=f"model.label_link={model.label_link}",
                fix="give the same, or start from a network without labels",
            )
        return LabelMaker(
            self.encoder.tokenizer,
            self.names.objects,
            self.names.attributes,
            slots=model.label_slots,
            pieces=model.label_pieces,
            inner=self.encoder.config.label_pieces,
            least=model.label_confidence,
        )

    def label_hider(self, maker: LabelMaker | None) -> LabelHider | None:
        """Returns what hides labels."""
        model = self.config.model
        if maker is None:
            return None
        rates = LabelRates(model.label_use, model.label_probability, model.label_replaced)
        return LabelHider(maker, rates, model.label_confidence)


def _heads_of(family: str) -> type[VisionLanguageHeads]:
    """Returns the class of the pre-training heads of a family.

    Raises:
        ModelError: It has none.
    """
    try:
        return family_module(family, "heads").HEAD_CLASS
    except ModuleNotFoundError:
        raise ModelError(
            f"models of the family {family} have no heads for a pre-training", fix="start from an ImageBERT or a BERT"
        ) from None


VARIANTS = {"fashion_bert": FashionBert, "lamp": Lamp}
