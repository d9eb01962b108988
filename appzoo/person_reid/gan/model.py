"""AS-GAN as one model, and what its losses and figures are made of."""

from __future__ import annotations

import tensorflow as tf

from appzoo.person_reid.config import GanSettings
from appzoo.person_reid.gan.masks import MaskHead, band, of_labels, surest
from appzoo.person_reid.gan.networks import SIZES, ClothEncoder, Generator, PatchCritic, garment_of, mean_scores
from appzoo.person_reid.network import unit_images
from easytransfer import keras
from easytransfer.image.size import ImageSize, height_width
from easytransfer.layers.text_cnn import one_if_empty
from easytransfer.train.task import Batch, Outputs

_TINY = 1e-6
# Colours nearer than this in every channel are no other outfit.
_ALIKE = 0.05


class ApparelGan(keras.Model):
    """Cloth encoder, generator, critic and what says where garments are.

    Args:
        settings: Sizes, and where masks come from.
        image_size: Of the images.
        seed: Of the start values.

    Call arguments:
        batch: `image` [batch, height, width, 3], uint8 or float32 from 0 to 1; with masks from a column also `mask`
            [batch, height, width]: 0 none, 1 upper, 2 lower.

    Returns:
        `cloth_embedding` float32 [batch, code].
    """

    def __init__(self, settings: GanSettings, image_size: ImageSize, seed: int) -> None:
        super().__init__(name="as_gan", autocast=False)
        size = SIZES[settings.size]
        self.settings, self.code_size = settings, size.code
        self.encoder, self.generator = ClothEncoder(size, seed), Generator(size, settings.shading, seed)
        self.critic = PatchCritic(size, seed)
        self.mask_head = MaskHead(image_size, seed) if settings.masks == "learned" else None
        self._band = band(image_size)
        blank = tf.zeros([1, *height_width(image_size), 3])
        masks = self.masks({"image": blank, "mask": tf.zeros(blank.shape[:3], tf.uint8)})
        self.critic(self.simulated(blank, masks, self.encoder(blank, masks)))
        self.built = True

    @staticmethod
    def code_size_of(settings: GanSettings) -> int:
        """Returns the numbers of a cloth code."""
        return SIZES[settings.size].code

    def call(self, batch: Batch, training: bool | None = None) -> Outputs:
        """See the class."""
        rows, batch = tf.shape(batch["image"])[0], never_empty(batch)
        images = unit_images(batch["image"])
        return {"cloth_embedding": self.encoder(images, self.masks({**batch, "image": images}))[:rows]}

    def masks(self, batch: Batch) -> tf.Tensor:
        """Returns upper and lower garment, float32 [batch, height, width, 2], of a batch with float32 images."""
        if self.settings.masks == "column":
            return of_labels(batch["mask"])
        if self.mask_head is not None:
            return surest(self.mask_head(batch["image"]))
        return tf.broadcast_to(self._band, [tf.shape(batch["image"])[0], *self._band.shape])

    def simulated(self, images: tf.Tensor, masks: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """Returns the persons in the outfits of the codes; see `Generator`."""
        return self.generator(images, masks, codes)

    @property
    def drawing_variables(self) -> list[tf.Variable]:
        """Variables of all but the critic."""
        head = [] if self.mask_head is None else self.mask_head.trainable_variables
        return [*self.encoder.trainable_variables, *self.generator.trainable_variables, *head]

    def training_terms(self, batch: Batch) -> Outputs:
        """Returns what the losses of the sheet are made of, each float32 [batch] (4.1).

        The outfit to wear is that of the image half a batch further on, which is the same pair for any number of
        workers that share a batch of even size.

        Args:
            batch: `image` float32 from 0 to 1, and `mask` where masks come from a column.
        """
        images, masks = batch["image"], self.masks(batch)
        half = tf.shape(images)[0] // 2
        others, other_masks = (tf.roll(each, -half, axis=0) for each in (images, masks))
        own = self.encoder(images, masks)
        wanted = tf.roll(own, -half, axis=0)
        again, simulated = (self.simulated(images, masks, codes) for codes in (own, wanted))
        back = self.simulated(simulated, masks, own)
        real, fake = self.critic(images), self.critic(simulated)
        hinges = [tf.nn.relu(1 - each) for each in real], [tf.nn.relu(1 + each) for each in fake]
        upper, lower = colour_errors(simulated, masks, others, other_masks)
        return {
            "reconstruction": _mean(tf.abs(again - images)),
            "embedding": tf.reduce_mean(tf.abs(self.encoder(simulated, masks) - tf.stop_gradient(wanted)), axis=-1),
            "cycle": _mean(tf.abs(back - images)),
            "style_upper": upper,
            "style_lower": lower,
            "adversarial": -mean_scores(fake),
            "critic": mean_scores(hinges[0]) + mean_scores(hinges[1]),
            "mask": self._mask_penalty(images),
        }

    def _mask_penalty(self, images: tf.Tensor) -> tf.Tensor:
        """Returns what the head of masks learns by, [batch]: of the images alone, not of what is drawn with them."""
        chosen, head = self.settings, self.mask_head
        if head is None:
            return tf.zeros(tf.shape(images)[:1])
        return head.penalty(images, head(images), chosen.area_prior, chosen.area_tolerance, chosen.variation_weight)

    def figures(self, batch: Batch) -> Outputs:
        """Returns what the generator is measured by, of each image alone, each [batch].

        The outfit to wear is that of the image with its channels exchanged (red for green, green for blue, blue for
        red): what garments of that code look like is then known.

        Returns:
            `reconstruction` and `area`: mean difference of pixels, and share of garments. `embedding`: difference of
            codes. `outside`: largest change of a pixel outside of the garments. `regions` and `followed`: garments
            whose wanted colour is another one, and those of them that have come nearer to it than to their own.
        """
        images = unit_images(batch["image"])
        masks = self.masks({**batch, "image": images})
        others = tf.gather(images, [1, 2, 0], axis=-1)
        own, wanted = self.encoder(images, masks), self.encoder(others, masks)
        simulated = self.simulated(images, masks, wanted)
        outside = tf.cast(garment_of(masks) == 0, tf.float32)
        found = [region_colours(each, masks) for each in (images, others, simulated)]
        (colours, present), (targets, _), (drawn, _) = found
        differ = tf.reduce_max(tf.abs(colours - targets), axis=-1) > _ALIKE
        counted = tf.cast(differ, tf.float32) * present
        errors = [tf.reduce_mean(tf.abs(drawn - each), axis=-1) for each in (targets, colours)]
        return {
            "reconstruction": _mean(tf.abs(self.simulated(images, masks, own) - images)),
            "area": tf.reduce_mean(garment_of(masks), axis=[1, 2, 3]),
            "embedding": tf.reduce_mean(tf.abs(self.encoder(simulated, masks) - wanted), axis=-1),
            "outside": tf.reduce_max(tf.abs(simulated - images) * outside, axis=[1, 2, 3]),
            "regions": tf.reduce_sum(counted, axis=-1),
            "followed": tf.reduce_sum(counted * tf.cast(errors[0] < errors[1], tf.float32), axis=-1),
        }


def never_empty(arrays: Batch) -> Batch:
    """Returns the arrays of a batch, with a row of zeros where they have none; see `one_if_empty`."""
    more = {name: [[0, one_if_empty(each)], *[[0, 0]] * (each.shape.rank - 1)] for name, each in arrays.items()}
    return {name: tf.pad(each, more[name]) for name, each in arrays.items()}


def region_colours(images: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean colours of the garments [batch, 2, 3], and whether there is one, float32 [batch, 2]."""
    totals = tf.reduce_sum(masks, axis=[1, 2])
    colours = tf.einsum("bhwp,bhwc->bpc", masks, images) / (totals[..., None] + _TINY)
    return colours, tf.cast(totals > 0, tf.float32)


def colour_errors(images: tf.Tensor, masks: tf.Tensor, others: tf.Tensor, other_masks: tf.Tensor) -> list[tf.Tensor]:
    """Returns mean differences of the colours of upper and of lower garments, 0 where one has none, each [batch]."""
    (found, there), (wanted, here) = region_colours(images, masks), region_colours(others, other_masks)
    return tf.unstack(tf.reduce_mean(tf.abs(found - wanted), axis=-1) * there * here, axis=1)


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(values, axis=[1, 2, 3])
