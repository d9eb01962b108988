"""AS-GAN as an application: trained on crops without labels, it gives codes of clothes and draws persons in others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.person_reid.augment import random_move
from appzoo.person_reid.config import AiflConfig, AsGanConfig
from appzoo.person_reid.gan.masks import PARTS
from appzoo.person_reid.gan.model import ApparelGan, never_empty
from appzoo.person_reid.gan.pictures import OUTFITS_FILE, write_outfits
from appzoo.person_reid.gan.training import GanEvaluator, gan_optimizers, gan_step
from appzoo.person_reid.network import unit_images
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.images import ImageInput
from easytransfer.app.inputs.maps import LabelMapInput
from easytransfer.data.encoded import EncodedTable
from easytransfer.image.size import height_width
from easytransfer.layers.draws import RowDraws
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, Step, TrainingStep
from easytransfer.train.task import Batch, Outputs


class AsGan(App):
    """A generator and a critic, each with an optimizer of its own."""

    config: AsGanConfig

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the crop, and its map of garments where masks come from a column."""
        data, model = self.config.data, self.config.model
        form = {"max_pixels": model.max_pixels}
        found: list[Input] = [ImageInput(str(data.first_sequence), model.image_size, **form)]
        if self.config.gan.masks == "column":
            found.append(LabelMapInput(str(data.mask_name), model.image_size, classes=PARTS, name="mask", **form))
        return found

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds all players."""
        return ApparelGan(self.config.gan, self.config.model.image_size, self.config.runtime.seed)

    # Training ------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns those of generator and critic."""
        return gan_optimizers(self.model, self.config.gan)

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns mirrored and shifted crops, float32 from 0 to 1, and their maps."""
        return moved_batch(batch, draws, self.config)

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Makes one step of both players; no label is looked at."""
        return gan_step(self.model, step, batch)

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns the figures that the generator is measured by, of each image alone."""
        return self.model.figures(batch)

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns what evaluations report: L_rec and L_emb; those of training are `gan_step`'s."""
        rows = batch["example_weight"]
        sums = {name: tf.reduce_sum(outputs[name] * rows) for name in ("reconstruction", "area", "embedding")}
        return {
            "reconstruction": Loss(sums["reconstruction"], sums["area"]),
            "embedding": Loss(sums["embedding"], tf.reduce_sum(rows)),
        }

    def evaluator(self) -> Evaluator:
        """Returns the figures over a table."""
        return GanEvaluator()

    # Results -------------------------------------------------------------------------------------------------

    def predict_step(self, batch: Batch) -> Outputs:
        """Returns `cloth_embedding`, the code of the clothes."""
        return self.model(batch)

    def evaluate_step(self, batch: Batch) -> Outputs:
        """Returns the figures alone."""
        return self.forward(batch)

    def output_columns(self) -> tuple[str, ...]:
        """Returns the one column."""
        return ("cloth_embedding",)

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Draws persons in the outfits of others."""
        write_outfits(folder / OUTFITS_FILE, self.model, encoded)
        return [OUTFITS_FILE]

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Adds `simulate`: a person in the clothes of another one."""
        return {**super().signatures(folder), "simulate": simulate_signature(self.model, self.config)}


def moved_batch(batch: Batch, draws: RowDraws, config: AsGanConfig | AiflConfig) -> Batch:
    """Returns a batch with mirrored and shifted crops, float32 from 0 to 1, and maps moved with them."""
    change = random_move(draws, config.model)
    found = {**batch, "image": unit_images(change.image(batch["image"], method="nearest"))}
    if "mask" in batch:
        found["mask"] = change.labels(batch["mask"], fill=0)
    return found


def simulate_signature(gan: ApparelGan, config: AsGanConfig) -> Signature:
    """Returns the signature on pixels from 0 to 1: image, target, and masks [height, width, 2] where they are given.

    It answers `simulated`, float32 [batch, height, width, 3] from 0 to 1.
    """
    height, width = height_width(config.model.image_size)
    random = np.random.default_rng(0)
    specs = {name: tf.TensorSpec([None, height, width, 3], tf.float32) for name in ("image", "target_image")}
    samples = {name: random.random((2, height, width, 3), np.float32) for name in specs}
    doc = "pixels of persons and of those whose clothes they are to wear, red, green and blue from 0 to 1"
    if config.gan.masks == "column":
        masks = ("cloth_mask", "target_mask")
        specs |= {name: tf.TensorSpec([None, height, width, 2], tf.float32) for name in masks}
        parts = np.eye(PARTS, dtype=np.float32)[random.integers(0, PARTS, (2, 2, height, width))][..., 1:]
        samples |= dict(zip(masks, parts, strict=True))
        doc += ", and masks of their upper and lower garments"

    def simulate(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
        rows, raw = tf.shape(raw["image"])[0], never_empty(raw)
        if config.gan.masks == "column":
            masks = (raw["cloth_mask"], raw["target_mask"])
        else:
            masks = (gan.masks({"image": raw["image"]}), gan.masks({"image": raw["target_image"]}))
        codes = gan.encoder(raw["target_image"], masks[1])
        return {"simulated": gan.simulated(raw["image"], masks[0], codes)[:rows]}

    return Signature(simulate, specs, samples, doc, gan)
