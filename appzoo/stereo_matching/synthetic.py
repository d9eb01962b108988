"""Pairs of layered scenes whose disparities and hidden pixels are known exactly; no download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FINE, _COARSE, _BLOCK = 0.45, 0.35, 4
_NOISE = 0.01


@dataclass(frozen=True)
class Scene:
    """A rectified pair.

    Attributes:
        left: uint8 [height, width, 3].
        right: The same.
        disparity: Of the left image in whole pixels, float32 [height, width].
        visible: Which left pixels the right eye sees, bool [height, width].
    """

    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A textured rectangle at one distance.

    Attributes:
        texture: float32 [rows, columns, 3] from 0 to 1.
        top: First row.
        left: First column in the left image.
        disparity: In whole pixels.
    """

    texture: np.ndarray
    top: int
    left: int
    disparity: int


def _texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns fine noise, blocks of one colour, and a tint."""
    blocks = random.random((-(-height // _BLOCK), -(-width // _BLOCK), 3))
    coarse = np.repeat(np.repeat(blocks, _BLOCK, 0), _BLOCK, 1)[:height, :width]
    tint = random.random(3) * (1 - _FINE - _COARSE)
    return (_FINE * random.random((height, width, 3)) + _COARSE * coarse + tint).astype(np.float32)


def scene(random: np.random.Generator, height: int, width: int, disparities: int) -> Scene:
    """Returns a random scene: a background, and two to four rectangles before it.

    Args:
        random: Source of the scene.
        height: Rows.
        width: Columns.
        disparities: Disparities are below this number, at least 8.
    """
    behind = int(random.integers(1, 4))
    # Wide enough for what the right eye sees beyond the left image's border.
    layers = [Layer(_texture(random, height, width + behind), 0, 0, behind)]
    nearer = np.sort(random.integers(4, disparities - 2, random.integers(2, 5)))
    for disparity in nearer:
        rows, columns = (int(random.integers(side * 7 // 32, side * 11 // 16)) for side in (height, width // 2))
        top, left = int(random.integers(0, height - rows)), int(random.integers(0, width - columns))
        layers.append(Layer(_texture(random, rows, columns), top, left, int(disparity)))
    return layered(layers, height, width, random)


def layered(layers: list[Layer], height: int, width: int, random: np.random.Generator) -> Scene:
    """Returns the pair of layers, those behind first; pixels get some noise.

    Raises:
        ValueError: A layer hides one that is nearer.
    """
    if any(one.disparity > other.disparity for one, other in zip(layers, layers[1:], strict=False)):
        raise ValueError("layers go from far to near")
    images = np.zeros((2, height, width, 3), np.float32)
    numbers = np.full((2, height, width), -1)
    disparity = np.zeros((height, width), np.float32)
    for number, layer in enumerate(layers):
        rows = slice(layer.top, layer.top + len(layer.texture))
        for side, shift in ((0, 0), (1, layer.disparity)):
            first, last = layer.left - shift, layer.left - shift + layer.texture.shape[1]
            start = max(first, 0)
            columns = slice(start, max(start, min(last, width)))
            images[side, rows, columns] = layer.texture[:, columns.start - first : columns.stop - first]
            numbers[side, rows, columns] = number
            if side == 0:
                disparity[rows, columns] = layer.disparity
    noisy = images + random.normal(0, _NOISE, images.shape)
    left, right = (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)
    # A left pixel is seen where the layer that the right eye has at its place is its own.
    place = np.arange(width) - disparity.astype(int)
    seen = np.take_along_axis(numbers[1], np.maximum(place, 0), axis=1)
    return Scene(left, right, disparity, (place >= 0) & (seen == numbers[0]))
