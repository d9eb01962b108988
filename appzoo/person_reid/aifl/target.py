"""Who is on an image, and where the garments are, which training alone needs to know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from appzoo.person_reid.config import AiflConfig
from appzoo.person_reid.gan.masks import PARTS
from appzoo.person_reid.target import COLUMNS, PersonTarget
from easytransfer.app.assets import Assets
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.inputs.maps import LabelMapInput
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.image.maps import load_maps
from easytransfer.image.size import height_width
from easytransfer.run.log import say


class GarmentMap(LabelMapInput):
    """Maps of garments; where a cell is empty nothing is a garment, so that the image keeps its clothes."""

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded] = ()) -> Encoded:
        """Reads and resizes maps; see `MapInput.encode`."""
        size = height_width(self.size)
        blank = np.zeros(size, np.uint8)
        cells = [blank if cell is None or (isinstance(cell, str) and not cell) else cell
                 for cell in chunk.columns[self.column]]  # fmt: skip
        found = load_maps(cells, os.path.dirname(chunk.file), max_pixels=self.max_pixels, change=self._change)
        maps = np.zeros((len(found), *size), self.dtype)
        for row, values in enumerate(found):
            if isinstance(values, str):
                chunk.reject(row, self.column, values)
            else:
                maps[row] = values
        return Encoded({self.name: maps})


class ApparelTarget(PersonTarget):
    """Identities with maps of garments, `mask` uint8 [batch, height, width], which predictions do without.

    Args:
        config: Of the job; masks come from a column.
        identities: See `PersonTarget`.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = (*COLUMNS, "mask")

    def __init__(self, config: AiflConfig, identities: np.ndarray | None = None) -> None:
        super().__init__(config.data, config.retrieval, identities)
        model = config.model
        form = {"name": "mask", "max_pixels": model.max_pixels}
        self.maps = GarmentMap(str(config.data.mask_name), model.image_size, classes=PARTS, **form)

    @property
    def chunk_rows(self) -> int:  # type: ignore[override]
        """Rows read at a time: as many as their maps allow."""
        return self.maps.chunk_rows

    def table_columns(self) -> list[str]:
        """Returns the label columns and that of the maps."""
        return [*super().table_columns(), *self.maps.table_columns()]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns the columns of `PersonTarget`, and `mask`."""
        return Encoded({**super().encode(chunk, inputs).columns, **self.maps.encode(chunk).columns})

    def on_train_table(self, train: EncodedTable) -> None:
        """Finds the identities, and says how many images have no garment."""
        super().on_train_table(train)
        masks = train.columns["mask"]
        bare = sum(int((~np.asarray(masks[i : i + 1024]).any(axis=(1, 2))).sum()) for i in range(0, len(masks), 1024))
        if bare:
            say(f"{bare:,} of {len(masks):,} training images have no garment in their map and keep their clothes")


def apparel_target(config: AiflConfig, assets: Assets) -> PersonTarget:
    """Returns the target of a job: with maps where masks come from a column."""
    folder: Path | None = assets.folder
    stored = None if folder is None else PersonTarget.load(config.data, config.retrieval, folder).identities
    if config.gan.masks == "column":
        return ApparelTarget(config, stored)
    return PersonTarget(config.data, config.retrieval, stored)
