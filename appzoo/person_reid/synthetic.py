"""Drawn persons: figures of an identity in an outfit as a camera sees them, with exact maps of the garments.

No photograph of a person is needed to try re-identification across clothes: what identifies a figure is its build, its
head and its hair, and its clothes can be changed at will.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

UPPER, LOWER = 1, 2
# What tells the random numbers of cameras, identities, outfits and images apart.
_CAMERA, _IDENTITY, _OUTFIT, _IMAGE = range(4)
_NOISE, _GAIN = 0.04, 0.06
# Share of the head above which there is hair, and of the legs above which there are trousers.
_HAIRLINE, _TROUSERS = 0.45, 0.92
_SHOES = (0.12, 0.1, 0.1)
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """The build of a person; lengths are shares of the figure unless said otherwise.

    Attributes:
        height: Of the figure, share of the frame.
        shoulders: Width of the shoulders, share of the frame's width.
        waist: Width of the waist by that of the shoulders.
        legs: Length of the legs.
        head: Radius of the head.
        hair: Colour of the hair.
        skin: Colour of the skin.
        hair_length: How far hair falls, in radii of the head.
        leg_gap: Gap between the feet, share of the width of the waist.
    """

    height: float
    shoulders: float
    waist: float
    legs: float
    head: float
    hair: Colour
    skin: Colour
    hair_length: float
    leg_gap: float


@dataclass(frozen=True)
class Garment:
    """One garment: a colour, and stripes of another one.

    Attributes:
        colours: Two colours; the second one is of the stripes.
        stripes: `plain`, `horizontal` or `vertical`.
        period: Pixels from one stripe to the next.
    """

    colours: tuple[Colour, Colour]
    stripes: str
    period: int


@dataclass(frozen=True)
class Camera:
    """A background and a tint: what each channel is multiplied with."""

    background: Colour
    tint: Colour


def random_of(seed: int, kind: int, *numbers: int) -> np.random.Generator:
    """Returns the random numbers of one thing, whatever else is drawn."""
    return np.random.Generator(np.random.PCG64([seed, kind, *numbers]))


def _hsv(random: np.random.Generator, hue: tuple, saturation: tuple, value: tuple) -> Colour:
    return colorsys.hsv_to_rgb(*(random.uniform(*each) for each in (hue, saturation, value)))


def identity(seed: int, pid: int) -> Identity:
    """Returns the person of a number."""
    random = random_of(seed, _IDENTITY, pid)
    return Identity(
        height=random.uniform(0.70, 0.95),
        shoulders=random.uniform(0.30, 0.62),
        waist=random.uniform(0.65, 1.0),
        legs=random.uniform(0.42, 0.58),
        head=random.uniform(0.09, 0.15),
        hair=_hsv(random, (0.02, 0.14), (0.2, 0.9), (0.05, 0.8)),
        skin=_hsv(random, (0.03, 0.10), (0.25, 0.65), (0.35, 0.95)),
        hair_length=random.uniform(0.0, 2.2),
        leg_gap=random.uniform(0.0, 0.45),
    )


def outfit(seed: int, pid: int, number: int) -> tuple[Garment, Garment]:
    """Returns upper and lower garment of an outfit of a person."""
    random = random_of(seed, _OUTFIT, pid, number)
    return _garment(random), _garment(random)


def _garment(random: np.random.Generator) -> Garment:
    colours = tuple(_hsv(random, (0, 1), (0.2, 1), (0.15, 1)) for _ in range(2))
    stripes = ("plain", "horizontal", "vertical")[int(random.integers(3))]
    return Garment(colours, stripes, int(random.integers(3, 7)))


def camera(seed: int, number: int) -> Camera:
    """Returns the camera of a number."""
    random = random_of(seed, _CAMERA, number)
    tint = tuple(float(x) for x in random.uniform(0.85, 1.1, 3))
    return Camera(_hsv(random, (0, 1), (0.05, 0.4), (0.3, 0.8)), tint)


def crop(
    seed: int, pid: int, clothes: int, camera_number: int, image: int, size: tuple[int, int] = (64, 32)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one crop: the person in an outfit, seen by a camera.

    Args:
        seed: Of everything.
        pid: Person.
        clothes: Outfit of the person.
        camera_number: Camera.
        image: Number of the image among those of the person, the outfit and the camera.
        size: Height and width.

    Returns:
        Image uint8 [height, width, 3] and map of the garments uint8 [height, width]: 0, 1 upper, 2 lower.
    """
    random = random_of(seed, _IMAGE, pid, clothes, camera_number, image)
    view = camera(seed, camera_number)
    pixels, mask = _figure(identity(seed, pid), outfit(seed, pid, clothes), view, random, size)
    pixels = pixels * np.array(view.tint) * random.normal(1, _GAIN)
    if random.random() < 0.5:
        # As a cheap camera far away would have it.
        small = pixels.reshape(size[0] // 2, 2, size[1] // 2, 2, 3).mean(axis=(1, 3))
        pixels = small.repeat(2, axis=0).repeat(2, axis=1)
    pixels = pixels + random.normal(0, _NOISE, pixels.shape)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8), mask


def _figure(
    who: Identity, worn: tuple[Garment, Garment], view: Camera, random: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a person at a slightly different place, scale, width and lean each time."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width] + 0.5
    tall = min(who.height * random.uniform(0.96, 1.03), 0.98) * height
    top = (height - tall) / 2 + random.uniform(-0.02, 0.02) * height
    down = (y - top) / tall
    lean, shift = random.uniform(-0.06, 0.06), random.uniform(-0.05, 0.05)
    across = (x - width * (0.5 + shift)) + lean * (y - height / 2)
    half = who.shoulders * random.uniform(0.95, 1.05) * width / 2
    head, hip = 2 * who.head, 1 - who.legs
    waist = half * who.waist
    pixels = np.broadcast_to(np.array(view.background), (height, width, 3)).copy()
    mask = np.zeros(size, np.uint8)

    def paint(where: np.ndarray, colours: np.ndarray | Colour, part: int = 0) -> None:
        pixels[where] = np.broadcast_to(colours, pixels.shape)[where]
        mask[where] = part

    torso = half + (waist - half) * np.clip((down - head) / (hip - head), 0, 1)
    gap = np.clip((down - hip) / who.legs, 0, 1) * who.leg_gap * waist
    legs = (down >= hip) & (down < 1) & (np.abs(across) < waist) & (np.abs(across) >= gap)
    paint(legs & (down < hip + _TROUSERS * who.legs), _cloth(worn[1], size), LOWER)
    paint(legs & (down >= hip + _TROUSERS * who.legs), _SHOES)
    paint((down >= head) & (down < hip) & (np.abs(across) < torso), _cloth(worn[0], size), UPPER)
    radius = who.head * tall
    from_head = np.hypot(across, (down - who.head) * tall) / radius
    falls = (np.abs(across) < 1.1 * radius) & (down >= 0) & (down < who.head * (1 + who.hair_length))
    paint(falls & (down >= who.head), who.hair)
    paint(from_head < 1, who.skin)
    paint((from_head < 1.1) & (down < 2 * who.head * _HAIRLINE), who.hair)
    return pixels, mask


def _cloth(garment: Garment, size: tuple[int, int]) -> np.ndarray:
    """Returns the colours of a garment that covers all, [height, width, 3]."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    along = {"plain": np.zeros_like(y), "horizontal": y, "vertical": x}[garment.stripes]
    second = along % garment.period >= (garment.period + 1) // 2 if garment.stripes != "plain" else along > 0
    return np.where(second[..., None], garment.colours[1], garment.colours[0])
