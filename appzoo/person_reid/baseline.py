"""The baseline of re-identification: the same person in the images of other cameras (arXiv 1903.07071)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf

from appzoo.person_reid.augment import erased, jittered, random_move
from appzoo.person_reid.config import AiflConfig, BaselineConfig
from appzoo.person_reid.losses import batch_hard_triplet, scaled, smoothed_cross_entropy
from appzoo.person_reid.network import ReidNetwork, body_shape, start_body
from appzoo.person_reid.pictures import write_rankings
from appzoo.person_reid.ranking import UNKNOWN
from appzoo.person_reid.sampler import PkSampler
from appzoo.person_reid.target import GALLERY, QUERY, PersonTarget
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.images import ImageInput
from easytransfer.app.serving import Served
from easytransfer.data.batches import Sampler
from easytransfer.data.encoded import EncodedTable
from easytransfer.image.size import height_width
from easytransfer.layers.draws import RowDraws
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig

NETWORK_FILE = "network.json"
RANKINGS_FILE = "rankings.png"


class PersonReid(App):
    """The baseline: label-smoothed cross entropy over identities behind BNNeck, batch-hard triplets before it."""

    asset_files: ClassVar[tuple[str, ...]] = (NETWORK_FILE,)

    config: BaselineConfig | AiflConfig
    target: PersonTarget

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the crop."""
        model = self.config.model
        return [ImageInput(str(self.config.data.first_sequence), model.image_size, max_pixels=model.max_pixels)]

    def build_target(self, assets: Assets) -> PersonTarget:
        """Returns the identities."""
        data, retrieval = self.config.data, self.config.retrieval
        if assets.folder is None:
            return PersonTarget(data, retrieval)
        return PersonTarget.load(data, retrieval, assets.folder)

    def save_assets(self, folder: Path) -> None:
        """Writes the shape of the backbone, `null` for the tiny one."""
        shape = body_shape(self.config.model, self.config.runtime.model_zoo_base_path)
        write_json(folder / NETWORK_FILE, shape and shape.to_dict())
        super().save_assets(folder)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network, its backbone from weights, random, or of the shape stored in a run."""
        network = self.reid_network(assets)
        return PersonModel(network)

    def reid_network(self, assets: Assets) -> ReidNetwork:
        """Returns the network of the features."""
        settings, seed = self.config.model, self.config.runtime.seed
        if assets.folder is None:
            body = start_body(settings, seed, self.config.runtime.model_zoo_base_path)
        else:
            stored = RunFolder(assets.folder).read_json(NETWORK_FILE)
            body = None if stored is None else CnnBackbone(CnnConfig.from_dict(stored), seed=seed)
        network = ReidNetwork(settings, body, len(self.target.identities), seed)
        network(tf.zeros([1, *height_width(settings.image_size), 3], tf.uint8))
        return network

    def sampler(self, train: EncodedTable) -> Sampler:
        """Returns what makes batches of P identities with K images each."""
        pids, usable = np.asarray(train.columns["pid"]), self.target.trained_rows(train)
        return PkSampler(pids, self.config.model.images_per_identity, self.config.runtime.seed, usable)

    # Training ------------------------------------------------------------------------------------------------

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns mirrored, shifted and erased crops, float32 from 0 to 1."""
        settings = self.config.model
        images = random_move(draws, settings).image(batch["image"], method="nearest")
        if settings.colour_jitter:
            images = jittered(images, draws, settings.colour_jitter)
        return {**batch, "image": erased(images, draws, settings)}

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns `identity` and `triplet` in training; persons to be found again are no classes."""
        if not step.training:
            return super().losses(batch, outputs, step)
        return self.reid_losses(batch["pid"], batch["example_weight"], outputs)

    def reid_losses(self, pids: tf.Tensor, weights: tf.Tensor, outputs: Outputs) -> Losses:
        """Returns the losses of labelled rows.

        Args:
            pids: Identities [rows]; those that are none of the training, such as -1, have no part in it.
            weights: Of the rows, float32 [rows].
            outputs: `feature` and `logits` of the rows.
        """
        model = self.config.model
        classes, known = self.target.class_ids(pids)
        weights *= known
        smoothing = self.config.train.label_smoothing
        found = {"identity": smoothed_cross_entropy(outputs["logits"], classes, weights, smoothing)}
        if model.triplet_weight:
            triplet = batch_hard_triplet(outputs["feature"], classes, weights, model.margin)
            found["triplet"] = scaled(triplet, model.triplet_weight)
        return found

    # Results -------------------------------------------------------------------------------------------------

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Draws queries with the gallery images that come first."""
        sides = [self.target.persons(encoded, outputs["embedding"], role) for role in (QUERY, GALLERY)]
        protocol = "cc" if (np.asarray(encoded.columns["clothes"]) != UNKNOWN).any() else ""
        images, distractor = encoded.columns["image"], self.config.data.distractor_pid
        wrote = write_rankings(folder / RANKINGS_FILE, *sides, images, protocol, distractor)
        return [RANKINGS_FILE] if wrote else []

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Adds `embed`, which is the default one by its name, and `embed_tensor` on pixels from 0 to 1."""
        found = super().signatures(folder)
        served = Served(self.inputs, folder, self.predict_step)
        size = height_width(self.config.model.image_size)

        def embed(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return served.outputs({"image": image})

        specs = {"image": tf.TensorSpec([None, *size, 3], tf.float32)}
        noise = np.random.default_rng(0).random((2, *size, 3), np.float32)
        pixels = Signature(embed, specs, {"image": noise}, "red, green and blue from 0 to 1", served)
        return {**found, "embed": found["serving_default"], "embed_tensor": pixels}


class PersonModel(keras.Model):
    """Owner of the networks of a run.

    Args:
        reid: Network of the features.
    """

    def __init__(self, reid: ReidNetwork) -> None:
        super().__init__(name="persons", autocast=False)
        self.reid = reid
        self.built = True

    def call(self, batch: Batch, training: bool | None = None) -> Outputs:
        """Returns `feature`, `neck` and `logits` in training, else `embedding`, what persons are compared by."""
        if training:
            return self.reid(batch["image"], training=True)
        return {"embedding": self.reid.embed(batch["image"])}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trainable variables by depth."""
        return self.reid.layer_groups()
