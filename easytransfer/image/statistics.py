"""Mean and standard deviation of the channels of a table of images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ModelError
from easytransfer.run.atomic import write_json

# A channel that hardly changes is not blown up: half a level of 255.
LEAST_DEVIATION = 0.5 / 255


@dataclass(frozen=True)
class ChannelStatistics:
    """What images are normalised with, on the scale from 0 to 1.

    Attributes:
        mean: One number per channel.
        std: One number per channel.
        images: How many images they were computed from; 0 where they were given.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int = 0

    FILE: ClassVar[str] = "image_statistics.json"

    @classmethod
    def of(cls, images: np.ndarray) -> ChannelStatistics:
        """Computes them from uint8 images [rows, height, width, channels]: exactly, from counts of the 256 values."""
        values = np.arange(256) / 255
        mean, std = [], []
        for channel in range(images.shape[-1]):
            counts = np.zeros(256, np.int64)
            for start in range(0, len(images), 4096):
                counts += np.bincount(images[start : start + 4096, ..., channel].reshape(-1), minlength=256)
            share = counts / counts.sum()
            mean.append(float(share @ values))
            std.append(max(float(np.sqrt(share @ (values - mean[-1]) ** 2)), LEAST_DEVIATION))
        return cls(tuple(mean), tuple(std), len(images))

    def save(self, folder: Path, file: str = FILE) -> None:
        """Writes them into a file of a folder."""
        write_json(folder / file, asdict(self))

    @classmethod
    def load(cls, folder: Path, file: str = FILE) -> ChannelStatistics:
        """Reads what `save` wrote.

        Raises:
            ModelError: The file is absent or not of that form.
        """
        path = Path(folder) / file
        try:
            stored = parse_json(path.read_text(encoding="utf-8"))
            return cls(tuple(stored["mean"]), tuple(stored["std"]), stored["images"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is not readable: {error}", fix="give the run folder of an image model") from error
