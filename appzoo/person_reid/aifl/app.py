"""AIFL as an application: the baseline on images and their twins in other clothes (Yu et al., arXiv 2008.06181)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.discovery import find_application
from appzoo.person_reid.aifl.bank import OutfitBank
from appzoo.person_reid.aifl.figures import apparel_figures
from appzoo.person_reid.aifl.target import apparel_target
from appzoo.person_reid.augment import erased, jittered
from appzoo.person_reid.baseline import NETWORK_FILE, PersonModel, PersonReid
from appzoo.person_reid.config import AiflConfig
from appzoo.person_reid.gan.app import AsGan, moved_batch
from appzoo.person_reid.gan.model import ApparelGan
from appzoo.person_reid.gan.pictures import OUTFITS_FILE, write_outfits
from appzoo.person_reid.gan.training import gan_optimizers, gan_step
from appzoo.person_reid.losses import invariance, scaled
from appzoo.person_reid.network import ReidNetwork
from appzoo.person_reid.sampler import PkSampler
from appzoo.person_reid.target import PersonTarget
from easytransfer.app.contract import Assets
from easytransfer.app.frozen import Frozen
from easytransfer.data.batches import Sampler
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.train.stages import OptimizerPart, TrainingStage
from easytransfer.train.step import Losses, TrainingStep
from easytransfer.train.task import Batch

BANK_FILE = "bank.json"
GAN_STAGE, REID_STAGE = "as_gan", "aifl"
# Of the stage that trains AS-GAN; its rates are those of the section gan.
_GAN_SETTINGS = {"lr_decay": "constant", "warmup_ratio": 0.0, "weight_decay_ratio": 0.0, "adam_beta1": 0.5}


class Aifl(PersonReid):
    """The baseline on images and on the same persons in other clothes, whose identities they inherit."""

    asset_files: ClassVar[tuple[str, ...]] = (NETWORK_FILE, BANK_FILE)

    config: AiflConfig
    _train: EncodedTable
    # Rows of it whose outfits are in the bank: those that are trained on, not those of a test in the same table.
    _outfits: np.ndarray

    # Preparation ---------------------------------------------------------------------------------------------

    def build_target(self, assets: Assets) -> PersonTarget:
        """Returns the identities, with maps of garments where masks come from a column."""
        return apparel_target(self.config, assets)

    def open_frozen(self) -> dict[str, Frozen]:
        """Returns the generator of another run where the settings name one.

        Raises:
            ModelError: It is no run of AS-GAN, or made for other images or masks.
        """
        path = self.config.aifl.generator
        if path is None:
            return {}
        found = Frozen.open(path, find_application, "generator", arrays=dict)
        app = found.app
        if not isinstance(app, AsGan) or getattr(app, "model", None) is None:
            raise ModelError(
                f"{found.place} is no run of AS-GAN",
                received=found.record["model_name"],
                accepted="the run folder of a training of person_reid_as_gan",
            )
        theirs = (app.config.model.image_size, app.config.gan.masks)
        ours = (self.config.model.image_size, self.config.gan.masks)
        if theirs != ours:
            raise ModelError(
                f"{found.place} takes images of {theirs[0]} with masks={theirs[1]}, and this run has {ours[0]} with "
                f"masks={ours[1]}",
                fix="set model.image_size and gan.masks as it has them, or take another one",
            )
        return {"generator": found}

    def on_train_table(self, train: EncodedTable) -> None:
        """Finds the identities, and keeps the table, whose outfits are what images are dressed in."""
        super().on_train_table(train)
        self._train, self._outfits = train, np.flatnonzero(self.target.trained_rows(train))

    def save_assets(self, folder: Path) -> None:
        """Writes the size of the bank of outfits."""
        write_json(folder / BANK_FILE, {"outfits": len(self._outfits), "code": self.gan_code_size})
        super().save_assets(folder)

    @property
    def gan_code_size(self) -> int:
        """Numbers of a cloth code."""
        frozen = self.frozen.get("generator")
        if frozen is not None:
            return frozen.app.model.code_size
        return ApparelGan.code_size_of(self.config.gan)

    def build_network(self, assets: Assets) -> AiflModel:
        """Builds the network of the features, the bank of outfits, and the players where they are trained here."""
        if assets.folder is None:
            outfits, code = len(self._outfits), self.gan_code_size
        else:
            stored = RunFolder(assets.folder).read_json(BANK_FILE)
            outfits, code = stored["outfits"], stored["code"]
        gan = None
        if self.config.aifl.generator is None:
            gan = ApparelGan(self.config.gan, self.config.model.image_size, self.config.runtime.seed)
        return AiflModel(self.reid_network(assets), gan, OutfitBank(outfits, code))

    @property
    def gan(self) -> ApparelGan | None:
        """The generator with all that belongs to it: trained here, or of another run; None where that is not opened."""
        if self.model.gan is not None:
            return self.model.gan
        frozen = self.frozen.get("generator")
        return None if frozen is None else frozen.app.model

    def sampler(self, train: EncodedTable) -> Sampler:
        """Returns what makes batches of P identities with K images each, and some unlabelled images."""
        model, train_settings = self.config.model, self.config.train
        return PkSampler(
            np.asarray(train.columns["pid"]),
            model.images_per_identity,
            self.config.runtime.seed,
            self.target.trained_rows(train),
            unlabelled=model.unlabelled_per_batch,
            batch_size=train_settings.batch_size,
        )

    # Training ------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns that of the features, and those of generator and critic where they are trained here."""
        found = {"default": OptimizerPart(self.model.reid.trainable_variables)}
        return found if self.model.gan is None else {**found, **gan_optimizers(self.model.gan, self.config.gan)}

    def stages(self) -> list[TrainingStage]:
        """Returns the training of AS-GAN, unless a trained one is named, and that of the features."""
        features = TrainingStage(REID_STAGE, trains=self.model.reid.trainable_variables, begin=self.fill_bank)
        if self.model.gan is None:
            return [features]
        players = self.model.gan.trainable_variables
        epochs = self.config.aifl.gan_epochs
        return [TrainingStage(GAN_STAGE, epochs=epochs, trains=players, settings=_GAN_SETTINGS), features]

    def fill_bank(self) -> None:
        """Puts the codes of the outfits of all training images into the bank."""
        self.model.bank.fill(self.gan, self._train, self._outfits)

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns mirrored and shifted crops, float32 from 0 to 1, and their maps; erasing follows in the step."""
        return moved_batch(batch, draws, self.config)

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Makes a step of AS-GAN, which looks at no label, or one of the features."""
        if step.stage == GAN_STAGE:
            return gan_step(self.model.gan, step, batch)
        simulated, taken = self.simulate(batch, step.draws)
        settings = self.config.model
        if settings.colour_jitter:
            images = jittered(batch["image"], step.draws, settings.colour_jitter)
        else:
            images = batch["image"]
        # One call for both: batch statistics are those of real and simulated images together (sheet 10.10).
        both = tf.concat([erased(each, step.draws, settings) for each in (images, simulated)], axis=0)
        weights = batch["example_weight"]
        with tf.GradientTape() as tape:
            outputs = self.model.reid(both, training=True)
            losses = self.reid_losses(
                tf.tile(batch["pid"], [2]), tf.concat([weights, weights * taken], axis=0), outputs
            )
            if self.config.aifl.invariance_weight:
                real, other = tf.split(outputs["neck"], 2)
                losses["invariance"] = scaled(
                    invariance(real, other, weights * taken), self.config.aifl.invariance_weight
                )
            objective = step.objective(losses)
        step.update(tape.gradient(objective, step.variables()))
        return losses

    def simulate(self, batch: Batch, draws: RowDraws) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the persons in outfits of the bank, and whether they take part in this step, a scalar 0 or 1.

        In a step without them they are the images themselves, so that batch statistics are of real images.
        """
        gan, images = self.gan, batch["image"]
        codes = self.model.bank.drawn(batch["order"], self.outfit_orders(), draws)
        worn = tf.stop_gradient(gan.simulated(images, gan.masks(batch), codes))
        taken = tf.cast(draws.shared() < self.config.aifl.simulated_share, tf.float32)
        return taken * worn + (1 - taken) * images, taken

    def outfit_orders(self) -> np.ndarray:
        """Returns the numbers of the rows that the outfits of the bank are of, int64 [outfits], rising."""
        return np.asarray(self._train.columns["order"], np.int64)[self._outfits]

    # Results -------------------------------------------------------------------------------------------------

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Measures what changes of a vector when the person changes clothes; see `apparel_figures`."""
        return {} if self.gan is None else {"apparel": apparel_figures(self.model.reid, self.gan, encoded)}

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Draws queries with the gallery images that come first, and persons in the outfits of others."""
        pages = super().write_pages(folder, encoded, outputs)
        if self.gan is None:
            return pages
        write_outfits(folder / OUTFITS_FILE, self.gan, encoded)
        return [*pages, OUTFITS_FILE]


class AiflModel(PersonModel):
    """Owner of the networks of a run.

    Args:
        reid: Network of the features.
        gan: The players where they are trained in this run.
        bank: Codes of outfits.
    """

    def __init__(self, reid: ReidNetwork, gan: ApparelGan | None, bank: OutfitBank) -> None:
        super().__init__(reid)
        self.gan, self.bank = gan, bank
