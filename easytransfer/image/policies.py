"""AutoAugment and RandAugment: random operations of Pillow's kind on a batch of images.

AutoAugment is https://arxiv.org/abs/1805.09501 (operations in table 6, the CIFAR-10 policy in table 7), RandAugment
https://arxiv.org/abs/1909.13719. Every image of a batch has operations of its own. Of one operation an image gets at
most a table of values, a change of saturation, a sharpening and a move of pixels, so these four passes over the batch,
each idle for the images it does not concern, do what a switch for every image would.
"""

from __future__ import annotations

import math

import tensorflow as tf

from easytransfer.image import colour, geometry
from easytransfer.layers.draws import RowDraws

OPERATIONS = (
    *("identity", "auto_contrast", "equalize", "invert", "posterize", "solarize", "brightness", "contrast"),
    *("color", "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_ID = {name: number for number, name in enumerate(OPERATIONS)}
# RandAugment chooses among these (section 3 of its paper); `invert` is AutoAugment's only.
RAND_OPERATIONS = tuple(name for name in OPERATIONS if name != "invert")
# Strongest forms (table 6 of AutoAugment); translations of 150 pixels were for pictures of 331.
MOST_SHEAR, MOST_DEGREES, MOST_CHANGE, MOST_TRANSLATION = 0.3, 30.0, 0.9, 150 / 331
FEWEST_BITS = 4
# What comes in from outside when pixels are moved.
FILL = 128
_LEVELS = 9  # of the paper's ten levels, from 0
# The CIFAR-10 policy: pairs of (operation, probability, level).
CIFAR10_POLICY = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)


def auto_augment(images: tf.Tensor, draws: RowDraws) -> tf.Tensor:
    """Returns uint8 images changed by one pair of operations each, of the CIFAR-10 policy.

    Signs of moves and of the four enhancers are random.
    """
    operations = tf.constant([[_ID[name] for name, _, _ in pair] for pair in CIFAR10_POLICY])
    chances = tf.constant([[chance for _, chance, _ in pair] for pair in CIFAR10_POLICY], tf.float32)
    levels = tf.constant([[level / _LEVELS for _, _, level in pair] for pair in CIFAR10_POLICY], tf.float32)
    numbers = draws.uniform(5)
    pair = _choice(numbers[:, 0], len(CIFAR10_POLICY))
    for position in range(2):
        applied = numbers[:, 1 + 2 * position] < tf.gather(chances[:, position], pair)
        operation = tf.where(applied, tf.gather(operations[:, position], pair), _ID["identity"])
        level, negative = tf.gather(levels[:, position], pair), numbers[:, 2 + 2 * position] < 0.5
        images = operate(images, operation, strength(operation, level, negative, images.shape[1:3]))
    return images


def rand_augment(images: tf.Tensor, draws: RowDraws, layers: int, magnitude: float) -> tf.Tensor:
    """Returns uint8 images changed by `layers` operations each, chosen evenly and all of the same magnitude.

    Args:
        images: [batch, height, width, channels].
        draws: Source of the random numbers.
        layers: Operations one after the other.
        magnitude: 0 to 10, where 10 is the strongest form of each operation.
    """
    known = tf.constant([_ID[name] for name in RAND_OPERATIONS])
    for _ in range(layers):
        numbers = draws.uniform(2)
        operation = tf.gather(known, _choice(numbers[:, 0], len(RAND_OPERATIONS)))
        level = tf.fill(tf.shape(operation), magnitude / 10)
        images = operate(images, operation, strength(operation, level, numbers[:, 1] < 0.5, images.shape[1:3]))
    return images


def _choice(numbers: tf.Tensor, count: int) -> tf.Tensor:
    # A number just below 1 may round up to `count` when multiplied.
    return tf.minimum(tf.cast(numbers * count, tf.int32), count - 1)


def strength(operation: tf.Tensor, level: tf.Tensor, negative: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns what `operate` wants for each operation, float32 [batch]: bits, threshold, factor, degrees, pixels, ...

    Args:
        operation: Numbers in `OPERATIONS`, int32 [batch].
        level: Share of the strongest form, [batch].
        negative: Where the opposite direction is taken, bool [batch].
        size: Height and width of the images.
    """
    sign = tf.where(negative, -1.0, 1.0)
    height, width = size
    change, shear = 1 + sign * MOST_CHANGE * level, sign * MOST_SHEAR * level
    values = {
        "posterize": 8 - tf.round((8 - FEWEST_BITS) * level),
        "solarize": 256 * (1 - level),
        **dict.fromkeys(("brightness", "contrast", "color", "sharpness"), change),
        "rotate": sign * MOST_DEGREES * level,
        **dict.fromkeys(("shear_x", "shear_y"), shear),
        "translate_x": sign * tf.round(MOST_TRANSLATION * level * width),
        "translate_y": sign * tf.round(MOST_TRANSLATION * level * height),
    }
    found = tf.zeros_like(level)
    for name, value in values.items():
        found = tf.where(operation == _ID[name], value, found)
    return found


def operate(images: tf.Tensor, operation: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Applies to every image its own operation.

    Args:
        images: uint8 [batch, height, width, channels].
        operation: Numbers in `OPERATIONS`, int32 [batch].
        amount: `posterize`: bits kept; `solarize`: threshold; `brightness`, `contrast`, `color`, `sharpness`: factor;
            `rotate`: degrees counter-clockwise; `shear_x`, `shear_y`: pixels a row or column; `translate_x`,
            `translate_y`: whole pixels; float32 [batch].
    """
    images = colour.apply_tables(images, _tables(images, operation, amount))
    for name, change in (("color", colour.saturate), ("sharpness", colour.sharpen)):
        chosen = operation == _ID[name]
        changed = change(images, tf.where(chosen, amount, 1.0))
        images = tf.where(chosen[:, None, None, None], changed, images)
    moved = operation >= _ID["rotate"]
    changed = geometry.affine(images, _matrices(operation, amount, images.shape[1:3]), FILL)
    return tf.where(moved[:, None, None, None], changed, images)


def _tables(images: tf.Tensor, operation: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    counts = colour.histograms(images)
    bits = tf.clip_by_value(amount, 1.0, 8.0)
    tables = {
        "auto_contrast": colour.auto_contrast_table(counts),
        "equalize": colour.equalize_table(counts),
        "invert": 255 - tf.range(256)[None, None, :],
        "posterize": colour.posterize_table(bits),
        "solarize": colour.solarize_table(amount),
        "brightness": colour.brightness_table(amount),
        "contrast": colour.contrast_table(images, amount),
    }
    found = colour.same_table(tf.shape(images)[0], images.shape[-1])
    for name, table in tables.items():
        found = tf.where((operation == _ID[name])[:, None, None], table, found)
    return found


def _matrices(operation: tf.Tensor, amount: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the affine coefficients of the moves, float64 [batch, 6]; other operations have those of identity."""
    amount = tf.cast(amount, tf.float64)
    none, one = tf.zeros_like(amount), tf.ones_like(amount)
    centre_y, centre_x = size[0] / 2, size[1] / 2
    angle = -amount * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Pillow turns around the middle of the image and shears and shifts from its corner.
    moves = {
        "rotate": [
            *(cos, sin, centre_x - centre_x * cos - centre_y * sin),
            *(-sin, cos, centre_y + centre_x * sin - centre_y * cos),
        ],
        "shear_x": [one, amount, none, none, one, none],
        "shear_y": [one, none, none, amount, one, none],
        "translate_x": [one, none, amount, none, one, none],
        "translate_y": [one, none, none, none, one, amount],
    }
    found = tf.stack([one, none, none, none, one, none], axis=1)
    for name, matrix in moves.items():
        found = tf.where((operation == _ID[name])[:, None], tf.stack(matrix, axis=1), found)
    return found
