"""Changes of colour as Pillow's ImageOps and ImageEnhance make them, for a batch at once, each image its own.

Most of them replace every value of a channel by another: a table of 256 values for each image and channel.
Images are uint8 [batch, height, width, channels], tables int32 [batch, channels, 256].
"""

from __future__ import annotations

import tensorflow as tf

# Luma of ITU-R 601 in 16-bit fixed point, as Pillow has it.
LUMA = (19595, 38470, 7471)
LUMA_ROUND, LUMA_SHIFT = 1 << 15, 16
_VALUES = 256


def apply_tables(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """Returns the images with every value v of channel c replaced by `tables[image, c, v]`."""
    height, width, channels = images.shape[1:]
    flat = tf.reshape(tf.cast(tables, tf.uint8), [-1, channels * _VALUES])
    places = tf.cast(images, tf.int32) + _VALUES * tf.range(channels)
    found = tf.gather(flat, tf.reshape(places, [-1, height * width * channels]), batch_dims=1)
    return tf.reshape(found, [-1, height, width, channels])


def histograms(images: tf.Tensor) -> tf.Tensor:
    """Returns how often every value occurs, int32 [batch, channels, 256]."""
    channels = images.shape[-1]
    batch = tf.shape(images)[0]
    channel = tf.range(batch)[:, None, None, None] * channels + tf.range(channels)
    places = tf.reshape(channel * _VALUES + tf.cast(images, tf.int32), [-1])
    counts = tf.math.unsorted_segment_sum(tf.ones_like(places), places, batch * channels * _VALUES)
    return tf.reshape(counts, [batch, channels, _VALUES])


def same_table(batch: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns tables that change nothing."""
    return tf.broadcast_to(tf.range(_VALUES), [batch, channels, _VALUES])


def auto_contrast_table(counts: tf.Tensor) -> tf.Tensor:
    """Returns tables that stretch the values in use to 0 .. 255 (`ImageOps.autocontrast`)."""
    used = counts > 0
    low = tf.argmax(tf.cast(used, tf.int32), axis=-1)[..., None]
    high = _VALUES - 1 - tf.argmax(tf.cast(tf.reverse(used, [-1]), tf.int32), axis=-1)[..., None]
    # In double precision as Pillow has it: the highest value may come out a little below 255 and is cut to 254.
    values, bottom = tf.range(_VALUES, dtype=tf.float64), tf.cast(low, tf.float64)
    scale = tf.math.divide_no_nan(tf.constant(255.0, tf.float64), tf.cast(high - low, tf.float64))
    stretched = tf.cast(tf.clip_by_value(values * scale - bottom * scale, 0.0, 255.0), tf.int32)
    return tf.where(high > low, stretched, tf.range(_VALUES))


def equalize_table(counts: tf.Tensor) -> tf.Tensor:
    """Returns tables that spread the values evenly (`ImageOps.equalize`)."""
    last = tf.reduce_max(tf.where(counts > 0, tf.range(_VALUES), 0), axis=-1, keepdims=True)
    of_last = tf.gather(counts, last, batch_dims=2)
    step = (tf.reduce_sum(counts, axis=-1, keepdims=True) - of_last) // (_VALUES - 1)
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    spread = tf.minimum((step // 2 + below) // tf.maximum(step, 1), _VALUES - 1)
    single = tf.reduce_sum(tf.cast(counts > 0, tf.int32), axis=-1, keepdims=True) <= 1
    return tf.where(single | (step == 0), tf.range(_VALUES), spread)


def posterize_table(bits: tf.Tensor) -> tf.Tensor:
    """Returns tables that keep the upper `bits` [batch] of each value (`ImageOps.posterize`)."""
    unit = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32))[:, None, None]
    return tf.range(_VALUES) // unit * unit


def solarize_table(threshold: tf.Tensor) -> tf.Tensor:
    """Returns tables that invert values of `threshold` [batch] and above (`ImageOps.solarize`)."""
    values = tf.range(_VALUES)
    return tf.where(tf.cast(values, tf.float32) < threshold[:, None, None], values, _VALUES - 1 - values)


def brightness_table(factor: tf.Tensor) -> tf.Tensor:
    """Returns tables that multiply by `factor` [batch] (`ImageEnhance.Brightness`)."""
    return blend(tf.zeros([1, 1, _VALUES], tf.int32), tf.range(_VALUES), factor[:, None, None])


def contrast_table(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns tables that move values away from the mean grey of their image (`ImageEnhance.Contrast`)."""
    grey = tf.cast(luma(images), tf.float64)
    mean = tf.cast(tf.floor(tf.reduce_mean(grey, axis=[1, 2, 3]) + 0.5), tf.int32)
    return blend(mean[:, None, None], tf.range(_VALUES), factor[:, None, None])


def saturate(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns images moved away from their grey by `factor` [batch] (`ImageEnhance.Color`)."""
    mixed = blend(luma(images), tf.cast(images, tf.int32), factor[:, None, None, None])
    return tf.cast(mixed, tf.uint8)


def sharpen(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns images moved away from a smoothed copy by `factor` [batch] (`ImageEnhance.Sharpness`)."""
    height, width = images.shape[1:3]
    values = tf.cast(images, tf.int32)
    if height < 3 or width < 3:
        return images  # Pillow's filter leaves the border as it is
    parts = [
        (5 if (down, right) == (1, 1) else 1) * values[:, down : height - 2 + down, right : width - 2 + right]
        for down in range(3)
        for right in range(3)
    ]
    # The sum over 13 is rounded; it never ends in one half.
    smooth = (2 * tf.add_n(parts) + 13) // 26
    inner = tf.pad(smooth, [[0, 0], [1, 1], [1, 1], [0, 0]])
    border = tf.pad(
        tf.zeros([1, height - 2, width - 2, 1], tf.bool), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=True
    )
    mixed = blend(tf.where(border, values, inner), values, factor[:, None, None, None])
    return tf.cast(mixed, tf.uint8)


def luma(images: tf.Tensor) -> tf.Tensor:
    """Returns the grey of images as Pillow's `convert("L")` has it, int32 [batch, height, width, 1]."""
    values = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return values
    total = tf.reduce_sum(values * tf.constant(LUMA), axis=-1, keepdims=True) + LUMA_ROUND
    return tf.bitwise.right_shift(total, LUMA_SHIFT)


def blend(first: tf.Tensor, second: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `first + factor (second - first)` cut to whole numbers in 0 .. 255 (`Image.blend`), int32."""
    start = tf.cast(first, tf.float32)
    return tf.cast(tf.clip_by_value(start + factor * (tf.cast(second, tf.float32) - start), 0.0, 255.0), tf.int32)
