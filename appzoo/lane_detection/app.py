"""Lane detection: which pixels are of which lane, which lanes exist, and where they run.

Zheng et al., "RESA: Recurrent Feature-Shift Aggregator for Lane Detection", AAAI 2021, arXiv 2008.13719.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.lane_detection.config import BaselineConfig
from appzoo.lane_detection.decoding import faint_lanes, read_off
from appzoo.lane_detection.inputs import CameraImage
from appzoo.lane_detection.losses import IGNORED, pixel_counts, row_losses
from appzoo.lane_detection.network import LaneNetwork, backbone, backbone_shape
from appzoo.lane_detection.target import LaneTarget
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.serving import Served
from easytransfer.image.joint import Geometry, random_flip, random_rotation, resize
from easytransfer.image.size import height_width
from easytransfer.layers.draws import RowDraws
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.run.log import warn
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig

NETWORK_FILE = "network.json"
# Of images of the signature that takes arrays; any size is brought to the camera's.
_SAMPLE_SIZE = (45, 80)


class LaneDetection(App):
    """A dilated residual network, RESA where the settings have it, a decoder and an existence head."""

    asset_files: ClassVar[tuple[str, ...]] = (NETWORK_FILE,)

    config: BaselineConfig
    target: LaneTarget
    model: LaneNetwork

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the camera's image."""
        data = self.config.data
        return [CameraImage(str(data.first_sequence), self.config.model, data.label_name)]

    def build_target(self, assets: Assets) -> LaneTarget:
        """Returns the lanes."""
        return LaneTarget(str(self.config.data.label_name), self.config.model)

    def save_assets(self, folder: Path) -> None:
        """Writes the shape of the backbone, `null` for the tiny one."""
        shape = backbone_shape(self.config.model, self.config.runtime.model_zoo_base_path)
        write_json(folder / NETWORK_FILE, shape and shape.to_dict())
        super().save_assets(folder)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network, its backbone from weights, random, or of the shape stored in a run."""
        settings, seed = self.config.model, self.config.runtime.seed
        if assets.folder is None:
            if faint := faint_lanes(settings):
                warn(faint)
            body = backbone(settings, seed, self.config.runtime.model_zoo_base_path)
        else:
            stored = RunFolder(assets.folder).read_json(NETWORK_FILE)
            body = None if stored is None else CnnBackbone(CnnConfig.from_dict(stored), seed=seed)
        network = LaneNetwork(settings, body, seed)
        network({"image": tf.zeros([1, *height_width(settings.image_size), 3], tf.uint8)})
        return network

    # Training ------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns one for all variables, which are all decayed, as in the released networks."""
        return {"default": OptimizerPart(self.model.trainable_variables, no_decay=())}

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns images and masks rotated and mirrored alike; mirrored ones have their slots reversed."""
        change = self.augmentation(draws)
        mask = change.labels(batch["mask"], fill=0)
        mirrored, slots = change.mirrored, self.config.model.slots
        of_lane = (mask > 0) & (mask != IGNORED)
        reversed_mask = tf.where(of_lane, tf.cast(slots + 1, mask.dtype) - mask, mask)
        return {
            **batch,
            "image": change.image(tf.cast(batch["image"], tf.float32)),
            "mask": tf.where(mirrored[:, None, None], reversed_mask, mask),
            "exist": tf.where(mirrored[:, None], batch["exist"][:, ::-1], batch["exist"]),
        }

    def augmentation(self, draws: RowDraws) -> Geometry:
        """Returns the move of each image: a rotation as the camera sees it, before it is made smaller, and a flip."""
        settings = self.config.model
        small = height_width(settings.image_size)
        whole = (settings.kept_height, height_width(settings.original_size)[1])
        change = resize(draws.rows, small, whole)
        change = change.then(random_rotation(draws, whole, settings.rotation_degrees, probability=0.5))
        if settings.mirror:
            change = change.then(random_flip(draws, whole))
        return change.then(resize(draws.rows, whole, small))

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses of the maps and of existence, each divided by its own weight."""
        terms = outputs if "seg_sum" in outputs else self._row_losses(batch, outputs)
        return super().losses(batch, terms, step)

    def _row_losses(self, batch: Batch, outputs: Outputs) -> Outputs:
        found = (outputs["logits"], outputs["exist_logits"])
        return row_losses(batch["mask"], batch["exist"], *found, self.config.model)

    # Results -------------------------------------------------------------------------------------------------

    def predict_step(self, batch: Batch) -> Outputs:
        """Returns the lanes, see `decoding.read_off`: maps never leave the device."""
        outputs = self.forward(batch)
        return read_off(outputs["logits"], outputs["exist_logits"], self.config.model)

    def evaluate_step(self, batch: Batch) -> Outputs:
        """Returns the lanes, and of each row what losses and metrics are made of."""
        outputs = self.forward(batch)
        return {
            **read_off(outputs["logits"], outputs["exist_logits"], self.config.model),
            **self._row_losses(batch, outputs),
            "pixel_counts": pixel_counts(batch["mask"], outputs["logits"]),
        }

    def mask_step(self, batch: Batch) -> Outputs:
        """Returns `mask` uint8 [batch, height, width], the most probable slot of each pixel, 0 for background."""
        return {"mask": tf.cast(tf.argmax(self.forward(batch)["logits"], -1), tf.uint8)}

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Adds `serving_image`, which takes pixels in place of files, and `serving_mask`, which answers with a mask."""
        (camera,) = self.inputs
        served, masks = (Served(self.inputs, folder, step) for step in (self.predict_step, self.mask_step))

        def lanes(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.target.answer(served.outputs({"image": camera.each(image, lambda picture: picture)}))

        def mask(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return masks.outputs(masks.tensors({"image_bytes": image_bytes}))

        pixels = {"image": tf.TensorSpec([None, None, None, 3], tf.uint8)}
        noise = np.random.default_rng(0).integers(0, 256, (2, *_SAMPLE_SIZE, 3)).astype(np.uint8)
        files = {name: value[:2] for name, value in masks.samples().items()}
        further: dict[str, Any] = {
            "serving_image": Signature(lanes, pixels, {"image": noise}, "red, green and blue of images", served),
            "serving_mask": Signature(mask, masks.raw_specs, files, f"{camera.doc}; slots of pixels", masks),
        }
        return {**super().signatures(folder), **further}


VARIANTS = {"resa": LaneDetection, "baseline": LaneDetection}
