"""Drawn scenes: four objects of a shape and a colour each, what a detector says of them, and captions.

No photograph is needed to see whether words and regions are put together. Protocol of the project's sheet on LAMP: the
features of a region tell shape and colour only together, and the detector is often wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.data.regions import ImageRegions, write_region_records
from easytransfer.run.atomic import atomic_path

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "arrow", "heart")
COLOURS = ("red", "green", "blue", "yellow", "black", "white")
# Words of captions and questions.
WORDS = ("a", "and", "what", "colour", "is", "the", "?")
OBJECTS, WIDTH, SIZE = 4, 24, 100
WRONG_SHAPE, WRONG_COLOUR, SAID_COLOUR, WRONG_CAPTION = 0.15, 0.25, 0.5, 0.2
CAPTIONS = 3
# What tells the random numbers of the world, scenes and captions apart.
_WORLD, _SCENE, _CAPTION = range(3)
# Settings of the small network that reads scenes.
NETWORK = {
    "model_type": "imagebert",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,
    "max_position_embeddings": 16,
    "patch_feature_size": WIDTH,
    "max_patch_position_embeddings": OBJECTS,
    "region_positions": False,
    "box_size": 7,
    "label_pieces": 2,
}


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        shapes: Number of the shape of each object, [4].
        colours: Number of the colour of each.
        features: float32 [4, 24].
        boxes: x1, y1, x2, y2 as shares of the image, float32 [4, 4].
        found_shapes: What the detector says.
        found_colours: The same of colours.
    """

    shapes: np.ndarray
    colours: np.ndarray
    features: np.ndarray
    boxes: np.ndarray
    found_shapes: np.ndarray
    found_colours: np.ndarray


class World:
    """Scenes of a seed; each depends on its number alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        random = self._random(_WORLD)
        self._shapes, self._colours = (random.normal(size=[len(names), WIDTH]) for names in (SHAPES, COLOURS))
        self._mixed = random.normal(size=[WIDTH, WIDTH])

    def _random(self, kind: int, *numbers: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, kind, *numbers]))

    def scene(self, number: int) -> Scene:
        """Returns a scene; in half of them two objects have one shape."""
        random = self._random(_SCENE, number)
        shapes = random.permutation(len(SHAPES))[:OBJECTS]
        colours = random.integers(len(COLOURS), size=OBJECTS)
        if random.random() < 0.5:
            first, second = random.permutation(OBJECTS)[:2]
            shapes[second] = shapes[first]
            colours[[first, second]] = random.permutation(len(COLOURS))[:2]
        shape, colour = self._shapes[shapes], self._colours[colours]
        features = shape + colour + 0.5 * np.tanh((shape * colour) @ self._mixed) + random.normal(size=shape.shape)
        begin = random.uniform(0, 0.7, [OBJECTS, 2])
        boxes = np.concatenate([begin, begin + random.uniform(0.1, 0.3, [OBJECTS, 2])], axis=1)
        redrawn = [
            np.where(random.random(OBJECTS) < chance, random.integers(len(names), size=OBJECTS), true)
            for chance, names, true in ((WRONG_SHAPE, SHAPES, shapes), (WRONG_COLOUR, COLOURS, colours))
        ]
        return Scene(shapes, colours, features.astype(np.float32), boxes.astype(np.float32), *redrawn)

    def captions(self, number: int) -> list[str]:
        """Returns three captions, each of two objects and with a chance of one in five of another scene."""
        random = self._random(_CAPTION, number)
        found = []
        for _ in range(CAPTIONS):
            scene = self.scene(int(random.integers(1 << 40)) if random.random() < WRONG_CAPTION else number)
            parts = []
            for k in random.permutation(OBJECTS)[:2].tolist():
                colour = f"{COLOURS[scene.colours[k]]} " if random.random() < SAID_COLOUR else ""
                parts.append(f"{colour}{SHAPES[scene.shapes[k]]}")
            found.append(f"a {' and '.join(parts)}")
        return found


def regions_of(scene: Scene) -> ImageRegions:
    """Returns a scene as a detector gives it, all of it certain."""
    sure = np.ones(OBJECTS, np.float32)
    found = (scene.found_shapes.astype(np.int32), sure, scene.found_colours.astype(np.int32), sure)
    return ImageRegions(scene.features, scene.boxes, *found, size=(SIZE, SIZE))


def write_scenes(folder: Path, seed: int, numbers: dict[str, range]) -> None:
    """Writes scenes with captions, the same files for the same arguments.

    Args:
        folder: Gets `regions.tfrecord`; of each part `<part>.tsv`, a caption and the id of its image in a
            line; names of classes; and `network`, vocabulary and sizes of a small ImageBERT without weights.
        seed: Of the world.
        numbers: Numbers of the scenes of each part.
    """
    world = World(seed)
    every = [number for part in numbers.values() for number in part]
    folder.mkdir(parents=True, exist_ok=True)
    write_region_records(folder / "regions.tfrecord", ((str(n), regions_of(world.scene(n))) for n in every))
    for part, chosen in numbers.items():
        rows = [f"{text}\t{n}\n" for n in chosen for text in world.captions(n)]
        _write(folder / f"{part}.tsv", rows)
    write_names(folder)
    write_network(folder / "network")


def write_names(folder: Path) -> None:
    """Writes the names of shapes and colours."""
    for name, values in (("objects", SHAPES), ("attributes", COLOURS)):
        _write(folder / f"{name}.txt", [f"{value}\n" for value in values])


def write_network(folder: Path, extra: Sequence[str] = (), **sizes: Any) -> None:
    """Writes vocabulary and sizes of a small network without weights.

    Args:
        folder: Gets `vocab.txt` and `config.json`.
        extra: Further words.
        **sizes: Other values than those of `NETWORK`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *SHAPES, *COLOURS, *extra])
    _write(folder / "vocab.txt", [f"{word}\n" for word in words])
    config = {**NETWORK, "vocab_size": len(words), **sizes}
    _write(folder / "config.json", [json.dumps(config, indent=2), "\n"])


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic_path(path) as partial:
        partial.write_text("".join(lines), encoding="utf-8")
