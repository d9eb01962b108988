"""One move of pixels for an image and for all that lies on it: label map, disparity map, points and boxes.

Places are continuous and in pixels: column j of an image covers x from j to j + 1, with its centre at j + 0.5; y is the
same, downwards. What a data set gives as the number of a pixel is half a pixel less than its centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from easytransfer.image.geometry import take_pixels
from easytransfer.image.size import ImageSize, height_width
from easytransfer.layers.draws import RowDraws

Method = Literal["bilinear", "nearest"]
# Added to places, in pixels: one on the border of two pixels falls into the following one, whatever the roundings.
_BORDER = 1e-6


@dataclass(frozen=True)
class Geometry:
    """An affine transform for each image of a batch; made by the functions below, and joined with `then`.

    Attributes:
        matrices: a, b, c, d, e, f of each image, float64 [batch, 6]: the place (x, y) of the result shows the place
            (a x + b y + c, d x + e y + f) of the source.
        source: Height and width of what it is applied to.
        size: Height and width of the result.
        keeps_rows: Whether each row of the result shows one row of the source: nothing is rotated.

    Example:
        >>> draws, size = RowDraws(tf.constant([1, 2]), tf.constant(4)), (288, 800)
        >>> change = random_rotation(draws, size, degrees=2.0, probability=0.5).then(random_flip(draws, size))
        >>> change.image(tf.zeros([4, 288, 800, 3])).shape, change.labels(tf.zeros([4, 288, 800], tf.uint8), 0).shape
        (TensorShape([4, 288, 800, 3]), TensorShape([4, 288, 800]))
    """

    matrices: tf.Tensor
    source: tuple[int, int]
    size: tuple[int, int]
    keeps_rows: bool = True

    def then(self, following: Geometry) -> Geometry:
        """Returns this transform with another one after it, as one: pixels are interpolated once.

        Raises:
            ValueError: The other one takes another size.
        """
        if following.source != self.size:
            raise ValueError(f"a transform of {list(following.source)} cannot follow a result of {list(self.size)}")
        a, b, c, d, e, f = tf.unstack(self.matrices, axis=1)
        p, q, r, s, t, u = tf.unstack(following.matrices, axis=1)
        joined = [a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f]
        keeps_rows = self.keeps_rows and following.keeps_rows
        return Geometry(tf.stack(joined, axis=1), self.source, following.size, keeps_rows)

    @property
    def mirrored(self) -> tf.Tensor:
        """Which images are mirror images, bool [batch]: their slots, sides or views must be exchanged."""
        return self._determinant() < 0

    def image(self, images: tf.Tensor, fill: float | Sequence[float] = 0.0, method: Method = "bilinear") -> tf.Tensor:
        """Returns moved images, of the dtype given; uint8 is rounded.

        Beyond the outermost centres the border goes on, as in Pillow's transforms; nothing is smoothed, so images that
        become much smaller are better resized before.

        Args:
            images: uint8 or float [batch, height, width, channels].
            fill: Value of places from outside, or one for each channel.
            method: How values between centres are found.

        Raises:
            ValueError: The images have another size than `source`.
        """
        self._check(images, 4)
        if method == "nearest":
            return self._nearest(images, fill)
        x, y = self._places()
        height, width = self.source
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        left, top = tf.floor(x - 0.5), tf.floor(y - 0.5)
        right_share, lower_share = (tf.cast(part, tf.float32)[..., None] for part in (x - 0.5 - left, y - 0.5 - top))
        columns = [tf.clip_by_value(tf.cast(left, tf.int32) + step, 0, width - 1) for step in (0, 1)]
        rows = [tf.clip_by_value(tf.cast(top, tf.int32) + step, 0, height - 1) for step in (0, 1)]
        values = tf.cast(images, tf.float32)
        upper, lower = (
            (1 - right_share) * take_pixels(values, row, columns[0], 0.0)
            + right_share * take_pixels(values, row, columns[1], 0.0)
            for row in rows
        )
        found = (1 - lower_share) * upper + lower_share * lower
        found = tf.where(inside[..., None], found, tf.constant(fill, tf.float32))
        return tf.cast(tf.round(found), images.dtype) if images.dtype.is_integer else tf.cast(found, images.dtype)

    def labels(self, maps: tf.Tensor, fill: int) -> tf.Tensor:
        """Returns moved label maps: every place takes the label of the pixel it falls into.

        Args:
            maps: Whole numbers [batch, height, width].
            fill: Label of places from outside, such as the one that losses leave out.

        Raises:
            ValueError: The maps have another size than `source`.
        """
        self._check(maps, 3)
        return self._nearest(maps[..., None], fill)[..., 0]

    def disparity(self, maps: tf.Tensor, exchanged: bool = False) -> tf.Tensor:
        """Returns moved disparity maps of a rectified pair whose two images are moved alike.

        Values are found as those of labels are, and multiplied by the horizontal scale, so that pixel x of one view is
        still pixel x - disparity of the other. Mirroring turns the sides round: disparities become negative, unless the
        views are exchanged with it, and the map is that of the view that takes the place of the other one.

        Args:
            maps: Float [batch, height, width], in pixels; 0 where it is not known, as it becomes from outside.
            exchanged: Whether in mirrored images the map is that of the other view, whose disparities stay positive.

        Raises:
            ValueError: The maps have another size than `source`, or the transform rotates, after which the views of a
                pair no longer lie in the same rows.
        """
        self._check(maps, 3)
        if not self.keeps_rows:
            raise ValueError("a disparity map has no meaning in rotated pairs: crop, resize and mirror only")
        scale = tf.cast(1 / self.matrices[:, 0], maps.dtype)
        scale = tf.abs(scale) if exchanged else scale
        return self._nearest(maps[..., None], 0)[..., 0] * scale[:, None, None]

    def points(self, points: tf.Tensor) -> tf.Tensor:
        """Returns where points come to lie, float32; those that are moved outside stay outside.

        Args:
            points: x and y, float [batch, points, 2].
        """
        a, b, c, d, e, f = (tf.expand_dims(value, 1) for value in tf.unstack(self.matrices, axis=1))
        x, y = tf.unstack(tf.cast(points, tf.float64), axis=-1)
        determinant = self._determinant()[:, None]
        moved = [(e * (x - c) - b * (y - f)) / determinant, (a * (y - f) - d * (x - c)) / determinant]
        return tf.cast(tf.stack(moved, axis=-1), tf.float32)

    def boxes(self, boxes: tf.Tensor) -> tf.Tensor:
        """Returns the upright boxes around moved boxes, cut to the result; one outside becomes one without area.

        Args:
            boxes: left, top, right and bottom, float [batch, boxes, 4].
        """
        left, top, right, bottom = tf.unstack(boxes, axis=-1)
        count = tf.shape(boxes)[1]
        corners = tf.stack([left, top, right, top, right, bottom, left, bottom], axis=-1)
        moved = self.points(tf.reshape(corners, [-1, 4 * count, 2]))
        moved = tf.reshape(moved, [-1, count, 4, 2])
        most = tf.constant(self.size[::-1], tf.float32)
        lowest, highest = (tf.clip_by_value(edge(moved, axis=2), 0.0, most) for edge in (tf.reduce_min, tf.reduce_max))
        return tf.concat([lowest, highest], axis=-1)

    def _nearest(self, images: tf.Tensor, fill: float | Sequence[float]) -> tf.Tensor:
        x, y = (tf.cast(tf.floor(place + _BORDER), tf.int32) for place in self._places())
        return take_pixels(images, y, x, fill)

    def _places(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the places x and y of the source that the centres of the result show, float64 [batch, height, width].

        In double precision, so that whole moves of pixels are exact at any size.
        """
        a, b, c, d, e, f = (value[:, None, None] for value in tf.unstack(self.matrices, axis=1))
        x = tf.range(self.size[1], dtype=tf.float64)[None, None, :] + 0.5
        y = tf.range(self.size[0], dtype=tf.float64)[None, :, None] + 0.5
        return a * x + b * y + c, d * x + e * y + f

    def _determinant(self) -> tf.Tensor:
        a, b, _, d, e, _ = tf.unstack(self.matrices, axis=1)
        return a * e - b * d

    def _check(self, given: tf.Tensor, rank: int) -> None:
        if given.shape.rank != rank or tuple(given.shape[1:3]) != self.source:
            raise ValueError(f"a transform of {list(self.source)} is given {given.shape}")


def _geometry(values: Sequence[tf.Tensor | float], source: ImageSize, to: ImageSize, keeps_rows: bool) -> Geometry:
    """Makes a transform of its six numbers, at least one of them a tensor [batch]."""
    batch = next(value for value in values if tf.is_tensor(value))
    whole = [tf.cast(value, tf.float64) * tf.ones_like(batch, tf.float64) for value in values]
    return Geometry(tf.stack(whole, axis=1), height_width(source), height_width(to), keeps_rows)


def flip(where: tf.Tensor, size: ImageSize) -> Geometry:
    """Returns the transform that mirrors some images left to right.

    Args:
        where: Which, bool [batch].
        size: Of the images.
    """
    sign = tf.where(where, -1.0, 1.0)
    return _geometry([sign, 0, tf.where(where, float(height_width(size)[1]), 0.0), 0, 1, 0], size, size, True)


def resize(rows: tf.Tensor, size: ImageSize, to: ImageSize) -> Geometry:
    """Returns the transform to another size.

    Args:
        rows: Number of images.
        size: Of the images.
        to: Of the result.
    """
    (height, width), (tall, wide) = height_width(size), height_width(to)
    scale = tf.fill([rows], tf.constant(width / wide, tf.float64))
    return _geometry([scale, 0, 0, 0, height / tall, 0], size, to, True)


def crop(top: tf.Tensor, left: tf.Tensor, size: ImageSize, to: ImageSize) -> Geometry:
    """Returns the transform that takes a part of each image; what sticks out is filled, so it pads as well.

    Args:
        top: Rows cut off at the top [batch]; negative numbers add some.
        left: Columns cut off at the left, the same.
        size: Of the images.
        to: Of the part.
    """
    return _geometry([1, 0, left, 0, 1, top], size, to, True)


def rotate(degrees: tf.Tensor, size: ImageSize) -> Geometry:
    """Returns the transform that rotates images about their middle, counter-clockwise.

    Args:
        degrees: Angles [batch].
        size: Of the images, and of the result.
    """
    height, width = height_width(size)
    angle = tf.cast(degrees, tf.float64) * (math.pi / 180)
    cos, sin, x, y = tf.cos(angle), tf.sin(angle), width / 2, height / 2
    # y points downwards: what lies right of the middle in the result was below right of it in the source.
    return _geometry([cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos], size, size, False)


def random_flip(draws: RowDraws, size: ImageSize, probability: float = 0.5) -> Geometry:
    """Returns `flip` of a share of the images; one random number a row is taken."""
    return flip(draws.uniform(1)[:, 0] < probability, size)


def random_crop(draws: RowDraws, size: ImageSize, to: ImageSize, padding: int = 0) -> Geometry:
    """Returns `crop` at random whole places, each equally likely; two random numbers a row are taken.

    Args:
        draws: Source of the random numbers.
        size: Of the images.
        to: Of the part.
        padding: Filled pixels on each side of an image, out of which the part is taken.

    Raises:
        ValueError: The part is larger than the padded image.
    """
    (height, width), (tall, wide) = height_width(size), height_width(to)
    if tall > height + 2 * padding or wide > width + 2 * padding:
        raise ValueError(f"a part of {[tall, wide]} does not fit into {[height, width]} with {padding} around it")
    places = tf.constant([height - tall, width - wide], tf.float32) + (2 * padding + 1)
    # A number just below 1 may round up to the number of places when multiplied.
    offsets = tf.minimum(tf.floor(draws.uniform(2) * places), places - 1) - padding
    return crop(offsets[:, 0], offsets[:, 1], size, to)


def random_rotation(draws: RowDraws, size: ImageSize, degrees: float, probability: float = 1.0) -> Geometry:
    """Returns `rotate` by up to `degrees` either way for a share of the images; two random numbers a row are taken."""
    numbers = draws.uniform(2)
    return rotate(tf.where(numbers[:, 0] < probability, (2 * numbers[:, 1] - 1) * degrees, 0.0), size)
