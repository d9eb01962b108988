"""Stereo matching: the disparity of every pixel of the left image, learnt from pairs without ground truth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.stereo_matching.augment import StereoAugmentation
from appzoo.stereo_matching.config import StereoMatchingConfig, least_side
from appzoo.stereo_matching.inputs import StereoInput, inside
from appzoo.stereo_matching.networks import build
from appzoo.stereo_matching.objective import Pair, hidden_pixels, stereo_losses, taught
from appzoo.stereo_matching.occlusion import background_filled
from appzoo.stereo_matching.photometric import photometric, warped
from appzoo.stereo_matching.serving import further_signatures
from appzoo.stereo_matching.target import StereoTarget
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import EasyTransferError
from easytransfer.image.size import height_width
from easytransfer.layers.draws import RowDraws
from easytransfer.run.log import say
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.stages import TrainingStage
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs

WARM_START, ITERATION = "warm_start", "iteration_"
# Training pairs on which the masks of teachers are compared, and how many of them at a time.
_PROBED, _AT_A_TIME = 32, 4


class StereoMatching(App):
    """A network trained on how well the right image, moved by its disparities, looks like the left one.

    Reference: Peng et al., https://arxiv.org/abs/2010.10700. After a warm start come iterations: a frozen copy of the
    network, made at their beginning, says which pixels the right eye cannot see; these have no photometric loss and
    are drawn to the background's disparity. See the README for what is of the paper and what is not.
    """

    config: StereoMatchingConfig
    target: StereoTarget
    model: StereoModel
    _augmentation: StereoAugmentation

    def __init__(self, config: StereoMatchingConfig) -> None:
        super().__init__(config)
        # What the masks of the iterations hid, by stage; some training pairs, as `on_train_table` has seen them.
        self._masks: dict[str, dict[str, float]] = {}
        self._probe: dict[str, np.ndarray] = {}

    # Preparation ---------------------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the pair."""
        data, model = self.config.data, self.config.model
        columns = str(data.first_sequence), str(data.second_sequence)
        self._size = height_width(model.image_size)
        part = height_width(model.crop_size or model.image_size)
        self._augmentation = StereoAugmentation(self.config.augment, self._size, part)
        return [StereoInput(*columns, model.image_size, model.max_disparity, model.max_pixels)]

    def build_target(self, assets: Assets) -> StereoTarget:
        """Returns maps of disparities; true ones are only measured with."""
        return StereoTarget(self.config)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network and the teacher, both with random weights."""
        model = self.config.model
        whole = StereoModel(model.network, model.max_disparity)
        # Variables do not depend on the size, and a whole pair may take gigabytes.
        least = least_side(model.network)
        image = tf.zeros([1, least, max(least, model.max_disparity), 3], tf.uint8)
        whole({"left": image, "right": image})
        return whole

    def on_train_table(self, train: EncodedTable) -> None:
        """Keeps some pairs, evenly spaced, to look at what teachers say of them."""
        super().on_train_table(train)
        rows = np.unique(np.linspace(0, len(train) - 1, min(_PROBED, len(train))).astype(int))
        if self.config.occlusion.in_training:
            self._probe = {name: np.asarray(train.columns[name][rows]) for name in ("left", "right", "size")}

    # Training ------------------------------------------------------------------------------------------------

    def stages(self) -> list[TrainingStage]:
        """Returns the warm start and, where masks are used in training, the iterations."""
        warm, occlusion, train = TrainingStage(WARM_START), self.config.occlusion, self.config.train
        if not occlusion.in_training:
            return [warm]
        epochs = occlusion.iteration_epochs or train.num_epochs / 2
        settings = {"learning_rate": occlusion.iteration_learning_rate or train.learning_rate / 2}
        numbers = range(1, occlusion.iterations + 1)
        return [
            warm,
            *(
                TrainingStage(f"{ITERATION}{n}", epochs, settings=settings, begin=partial(self._begin, n))
                for n in numbers
            ),
        ]

    def _begin(self, number: int) -> bool:
        """Begins an iteration: measures the mask, copies the network into the teacher.

        Returns:
            False where the mask is that of the iteration before: this one would change nothing.

        Raises:
            EasyTransferError: The mask hides more than is allowed.
        """
        occlusion, first, name = self.config.occlusion, number == 1, f"{ITERATION}{number}"
        share, changed = self._compared_masks(with_teacher=not first)
        if share > occlusion.most_hidden:
            raise EasyTransferError(
                f"{name} cannot begin: the network hides {share:.0%} of the pixels, and these, without a loss, would "
                f"only become more; occlusion.most_hidden={occlusion.most_hidden:g}",
                fix="train the warm start for longer (train.num_epochs), with a lower learning_rate or more smoothness",
            )
        self._masks[name] = {"hidden_share": share} | ({} if first else {"changed_share": changed})
        say(f"{name}: the teacher hides {share:.1%} of the pixels" + ("" if first else f", {changed:.1%} changed"))
        if not first and self._probe and changed < occlusion.stop_change:
            return False
        self.model.copy_to_teacher()
        return True

    def _compared_masks(self, with_teacher: bool) -> tuple[float, float]:
        """Returns the share of pixels that the network hides, and the share where the teacher decides otherwise."""
        hidden = changed = total = 0.0
        count = tf.function(self._count_masks, reduce_retracing=True)
        for start in range(0, len(self._probe.get("size", ())), _AT_A_TIME):
            batch = {name: tf.constant(x[start : start + _AT_A_TIME]) for name, x in self._probe.items()}
            found = count(batch)
            hidden, total = hidden + float(found[0]), total + float(found[2])
            changed += float(found[1]) if with_teacher else 0.0
        return hidden / max(total, 1.0), changed / max(total, 1.0)

    def _count_masks(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        """Returns how many pixels the network hides, the teacher sees otherwise, and there are."""
        occlusion, disparities = self.config.occlusion, self.config.model.max_disparity
        pixels = inside(batch["size"], self._size)
        masks = [
            hidden_pixels(network(*_seen(batch))[-1], pixels, occlusion, occlusion.train_jump, disparities)
            for network in (self.model.network, self.model.teacher)
        ]
        counted = (masks[0], masks[0] ^ masks[1], pixels)
        return tuple(tf.reduce_sum(tf.cast(x, tf.float32)) for x in counted)

    def state(self) -> dict[str, Any]:
        """Returns what the masks of the iterations hid."""
        return {"masks": self._masks}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self._masks = dict(state["masks"])

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns parts of the pairs, some of them mirrored, beside what the network sees of them."""
        return self._augmentation(batch, draws)

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the photometric loss and smoothness; in an iteration with the teacher's mask and background."""
        pair = self._pair(batch)
        last = outputs["disparity_raw"]
        maps = [*(outputs[name] for name in sorted(outputs) if name.startswith("disparity_of_")), last]
        occlusion, teaching = self.config.occlusion, None
        if step.stage is not None and step.stage.startswith(ITERATION):
            teaching = taught(self._taught_by(pair, last), pair, occlusion, self.config.model.max_disparity)
        return stereo_losses(maps, pair, teaching, self.config.loss, occlusion.fill_weight)

    def _taught_by(self, pair: Pair, own: tf.Tensor) -> tf.Tensor:
        """Returns the disparities whose hidden pixels count: those of the teacher, not the network's own."""
        return self.model.teacher(pair.left, pair.right)[-1]

    def _pair(self, batch: Batch) -> Pair:
        pixels = batch["inside"] if "inside" in batch else inside(batch["size"], self._size)
        return Pair(unit(batch["left"]), unit(batch["right"]), pixels, batch["example_weight"])

    # Results -------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns the maps of the network [batch, height, width]; outside of training what is made of them, too."""
        outputs = super().forward(batch, training)
        return outputs if training else {**outputs, **self._answered(batch, outputs)}

    def _answered(self, batch: Batch, outputs: Outputs) -> Outputs:
        """Returns what is made of the network's disparities, 0 beside the pair.

        `disparity_raw` is the network's, `occlusion` uint8 which pixels are hidden, `disparity` has the background's in
        their place where `occlusion.mask_use` says so, and `photometric` [batch] is how well the visible pixels fit.
        """
        occlusion, disparities = self.config.occlusion, self.config.model.max_disparity
        pixels = inside(batch["size"], self._size)
        raw = tf.where(pixels, outputs["disparity_raw"], 0.0)
        hidden = hidden_pixels(raw, pixels, occlusion, occlusion.jump, disparities)
        answer = raw
        if occlusion.in_predictions:
            filled = tf.where(hidden, background_filled(raw, hidden | ~pixels), raw)
            answer = tf.clip_by_value(filled, 0.0, float(disparities - 1))
        seen = tf.cast(pixels & ~hidden, tf.float32)
        left, right = unit(batch["left"]), unit(batch["right"])
        each = photometric(warped(right, raw), left, self.config.loss.ssim_share) * seen
        fit = tf.math.divide_no_nan(tf.reduce_sum(each, axis=[1, 2]), tf.reduce_sum(seen, axis=[1, 2]))
        return {
            "disparity": answer,
            "disparity_raw": raw,
            "occlusion": tf.cast(hidden, tf.uint8),
            "photometric": fit,
        }

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns the signatures on files and on arrays, see `serving`."""
        found = super().signatures(folder)
        return {**found, **further_signatures(self.inputs[0], self.predict_step, found["predict_ids"])}

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Returns what the masks of the iterations hid."""
        return {"masks": self._masks} if self._masks else {}


class StereoModel(keras.Model):
    """A network and its teacher, a copy that only `copy_to_teacher` changes.

    Args:
        network: Name of the network.
        disparities: Disparities are below this number.

    Call arguments:
        batch: `left` and `right` [batch, height, width, 3], or `left_view` and `right_view` in their place: uint8, or
            float32 from 0 to 1.
        training: Whether normalisation uses the batch.

    Returns:
        `disparity_raw` float32 [batch, height, width]; in training also those of the heads before the last,
        `disparity_of_1` and so on.
    """

    def __init__(self, network: str, disparities: int) -> None:
        # Without automatic casting: images would lose bits before they are normalised.
        super().__init__(name="stereo_model", autocast=False)
        self.network, self.teacher = build(network, disparities), build(network, disparities, "teacher")
        self.teacher.trainable = False

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        maps = self.network(*_seen(batch), training=training)
        if not self.teacher.built:
            self.teacher(*_seen(batch))
        return {f"disparity_of_{i}": x for i, x in enumerate(maps[:-1], 1)} | {"disparity_raw": maps[-1]}

    def copy_to_teacher(self) -> None:
        """Gives the teacher the weights and statistics of the network."""
        # By their names: Keras lists the weights of what is not trained in another order.
        sources = {variable.name.partition("/network/")[2]: variable for variable in self.network.weights}
        for variable in self.teacher.weights:
            variable.assign(sources.pop(variable.name.partition("/teacher/")[2]))
        assert not sources


def _seen(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """Returns the left and right images that a network sees."""
    return tuple(unit(batch.get(f"{side}_view", batch[side])) for side in ("left", "right"))


def unit(images: tf.Tensor) -> tf.Tensor:
    """Returns images as float32 from 0 to 1; others than uint8 are so already."""
    return tf.cast(images, tf.float32) / 255 if images.dtype == tf.uint8 else images


VARIANTS = {"": StereoMatching}
