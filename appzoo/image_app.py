"""Applications on single images: tables of images in, one class or number a row out.

A subclass changes the loss or the train step and leaves this data path alone. What `train_step` and `losses` see:
`image` float32 from 0 to 1, augmented, [batch, height, width, channels] (or [batch, views, ...] with `views` above 1);
`label_id`; and with mixup `partner_label_id` and `own_share`. The model normalises inside, so that attacks and teachers
work on the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf

from appzoo.image_settings import ImageJobConfig
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.images import ImageInput
from easytransfer.app.targets.labels import LabelTarget, SingleLabel, label_target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.errors import ConfigError
from easytransfer.image.augment import Augmentation, unit_scale
from easytransfer.image.contact_sheet import write_contact_sheet
from easytransfer.image.mixing import draw_partners, draw_share, mix
from easytransfer.image.size import ImageSize, height_width
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.layers.draws import RowDraws
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.train import checkpoint
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.pretrained import network_shape, start_network

NETWORK_FILE = "network.json"
MISTAKES_FILE = "mistakes.png"
# Of the picture: as many as are readable in a card of the report.
_COLUMNS = 4
# Shown on the contact sheet.
MOST_MISTAKES = 24


class ImageApp(App):
    """A convolutional network on images of one size."""

    asset_files: ClassVar[tuple[str, ...]] = (NETWORK_FILE,)
    # Whether a label may be a number to predict; otherwise rows have classes.
    takes_numbers: ClassVar[bool] = True
    # Makes what reads labels where rows have one class each.
    label_class: Callable[[LabelMap], SingleLabel] = SingleLabel
    # Differently augmented copies of each image that a train step sees; one has no axis of its own.
    views: int = 1

    config: ImageJobConfig
    target: LabelTarget
    _augmentation: Augmentation | None = None

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the image; statistics come from a trained run, the configuration, or the run whose weights are taken.

        A pre-trained model has put its own into the configuration, see `ImageJobConfig`.

        Where none of these has them, they are computed from the training table.
        """
        model, start = self.config.model, self.config.train.init_checkpoint_path
        statistics = None
        if assets.folder is not None:
            statistics = ChannelStatistics.load(assets.folder)
        elif model.channel_mean is not None and model.channel_std is not None:
            statistics = ChannelStatistics(tuple(model.channel_mean), tuple(model.channel_std))
        elif start:
            # Weights belong to images normalised in one way.
            statistics = ChannelStatistics.load(checkpoint.resolve(start).parent)
        return [
            ImageInput(
                str(self.config.data.first_sequence),
                model.image_size,
                model.channels,
                mode=model.resize_mode,
                crop_top=model.crop_top,
                max_pixels=model.max_pixels,
                statistics=statistics,
                fit_statistics=True,
            )
        ]

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes or a number.

        Raises:
            ConfigError: Mixup is asked for where there are no classes.
        """
        mixed = bool(self.config.augment.mixup_alpha)
        target = label_target(self.config, assets, self.label_class, numbers=self.takes_numbers and not mixed)
        if mixed:
            target.require_classes("augment.mixup_alpha", fix="set it to 0")
        return target

    @property
    def statistics(self) -> ChannelStatistics | None:
        """What images are normalised with; None until the training table is known."""
        return self.inputs[0].statistics

    @statistics.setter
    def statistics(self, found: ChannelStatistics | None) -> None:
        self.inputs[0].statistics = found

    def save_assets(self, folder: Path) -> None:
        """Writes the shape of the network, channel statistics and label map."""
        write_json(folder / NETWORK_FILE, self.network_config().model_dump(mode="json"))
        self._known_statistics()
        super().save_assets(folder)

    def _known_statistics(self) -> ChannelStatistics:
        if self.statistics is None:
            raise ConfigError(
                "the channel statistics are not known yet",
                fix="call on_train_table with the training table, or give model.channel_mean and model.channel_std",
            )
        return self.statistics

    def network_config(self, folder: Path | None = None) -> CnnConfig:
        """Returns the shape of the network that the configuration names, or the one stored in `folder`."""
        if folder is not None:
            return stored_network(folder)
        model = self.config.model
        chosen = {"image_size": model.image_size, "channels": model.channels}
        return network_shape(model.network, self.config.runtime.model_zoo_base_path).model_copy(update=chosen)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network with its start values, or the shape stored in a run with weights to be restored."""
        shape, seed = self.network_config(assets.folder), self.config.runtime.seed
        if assets.folder is None:
            network = self.start_network(self.config.model.network, shape, seed)
        else:
            network = CnnBackbone(shape, self.target.num_outputs, seed)
        whole = ImageModel(network, self._known_statistics(), shape.image_size)
        whole({"image": tf.zeros([1, *self.config.model.image_shape], tf.uint8)})
        return whole

    def start_network(self, name: str, shape: CnnConfig, seed: int) -> CnnBackbone:
        """Returns a network with the weights of the model that it is named after, or with random ones."""
        model, zoo = self.config.model, self.config.runtime.model_zoo_base_path
        return start_network(name, shape, self.target.num_outputs, seed, weights=model.weights, zoo=zoo)

    # Training ------------------------------------------------------------------------------------------------

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns augmented images, and with mixup the partners' labels and the share of the own image."""
        if self._augmentation is None:
            self._augmentation = Augmentation(self.config.augment, self._known_statistics().mean)
        change = self._augmentation
        images = change(batch["image"], draws) if self.views == 1 else change.views(batch["image"], draws, self.views)
        alpha = self.config.augment.mixup_alpha
        if not alpha:
            return {**batch, "image": images}
        # Partners are rows of the same worker: with mixup, several workers mix other pairs than one worker would.
        partners, share = draw_partners(draws), draw_share(draws, alpha)
        return {
            **batch,
            "image": mix(images, partners, share),
            "partner_label_id": tf.gather(batch["label_id"], partners),
            "own_share": tf.fill(tf.shape(batch["example_weight"]), share),
        }

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the loss of the task, summed over rows; with mixup that of both labels by their shares."""
        if "own_share" not in batch:
            return super().losses(batch, outputs, step)
        parts = [super(ImageApp, self).losses(part, outputs, step)["loss"] for part in mixed_parts(batch)]
        return {"loss": Loss(tf.add_n([total for total, _ in parts]), tf.add_n([weight for _, weight in parts]))}

    # Results -------------------------------------------------------------------------------------------------

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Draws the most confident mistakes, the surest first."""
        if self.target.kind != "classification":
            return []
        probabilities = np.stack(self.postprocess(outputs, encoded)["probabilities"])
        true = encoded.columns["label_id"]
        predicted = probabilities.argmax(axis=1)
        wrong = np.flatnonzero(predicted != true)
        chosen = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:MOST_MISTAKES]
        if not len(chosen):
            return []
        names = self.labels
        captions = [
            (f"{names[predicted[row]]} ({probabilities[row, predicted[row]]:.0%})", f"true: {names[true[row]]}")
            for row in chosen
        ]
        write_contact_sheet(folder / MISTAKES_FILE, encoded.columns["image"][chosen], captions, columns=_COLUMNS)
        return [MISTAKES_FILE]


def stored_network(folder: Path) -> CnnConfig:
    """Returns the shape of the network in a run folder.

    Raises:
        ModelError: It is not there, or damaged.
    """
    return CnnConfig.from_dict(RunFolder(folder).read_json(NETWORK_FILE), source=str(Path(folder) / NETWORK_FILE))


def mixed_parts(batch: Batch) -> list[Batch]:
    """Returns a mixed batch as two: the own labels and the partners', each row weighted by its share."""
    share = batch["own_share"]
    return [
        {**batch, "label_id": labels, "example_weight": batch["example_weight"] * part}
        for labels, part in ((batch["label_id"], share), (batch["partner_label_id"], 1 - share))
    ]


class ImageModel(keras.Model):
    """Normalises images and calls a network.

    Args:
        network: Takes float32 [batch, height, width, channels]; returns a dict with `logits`, maybe `features`.
        statistics: Mean and standard deviation of the channels.
        size: Size that the network takes, to which other images are resized; None = as they come.

    Call arguments:
        batch: `image` [batch, height, width, channels], uint8, or float32 from 0 to 1.

    Returns:
        `logits` float32 [batch, outputs].
    """

    def __init__(self, network: keras.Model, statistics: ChannelStatistics, size: ImageSize | None = None) -> None:
        # Without automatic casting: images would lose bits before they are normalised.
        super().__init__(name="image_model", autocast=False)
        self.network, self.size = network, size
        self.mean, self.std = np.float32(statistics.mean), np.float32(statistics.std)

    @property
    def compiled_part(self) -> keras.Model:
        """The network without what comes before it: XLA cannot resize images as one pruned in resolution needs."""
        return self.network

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trained variables by depth: the first layers, each stage, what follows them, and the classifier."""
        *groups, last = self.network.layer_groups()
        names = {id(variable): name for name, variable in self.network.named_variables().items()}
        head = [variable for variable in last if names[id(variable)].startswith("logits/")]
        known = {id(variable) for variable in head}
        rest = [variable for variable in last if id(variable) not in known]
        return [group for group in (*groups, rest, head) if group]

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `{"logits": [batch, outputs]}`."""
        images = self.normalised(batch["image"])
        if self.size is not None and tuple(images.shape[1:3]) != height_width(self.size):
            # A network pruned in resolution sees smaller images than the table and the server have.
            images = tf.image.resize(images, height_width(self.size), antialias=True)
        outputs = self.network(images, training=training)
        return {"logits": tf.cast(outputs["logits"], tf.float32)}

    def normalised(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images as the network takes them."""
        images = unit_scale(images) if images.dtype == tf.uint8 else images
        return (images - self.mean) / self.std
