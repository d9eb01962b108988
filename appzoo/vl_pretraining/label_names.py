"""Names of the classes of regions, kept with a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

from easytransfer.app.inputs.region_labels import read_names
from easytransfer.run.atomic import atomic_path

NAME_FILES = ("object_names.txt", "attribute_names.txt")


class LabelNames(NamedTuple):
    """Names in the order of the numbers of classes; none where none were given.

    Attributes:
        objects: Of the classes of objects.
        attributes: Of attributes.
    """

    objects: list[str]
    attributes: list[str]

    @classmethod
    def read(cls, objects: str | None, attributes: str | None) -> Self:
        """Reads the files of the settings, see `read_names`."""
        return cls(*([] if path is None else read_names(path) for path in (objects, attributes)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote."""
        return cls(*((folder / name).read_text(encoding="utf-8").splitlines() for name in NAME_FILES))

    def save(self, folder: Path) -> None:
        """Writes a file of each."""
        for name, values in zip(NAME_FILES, self, strict=True):
            with atomic_path(folder / name) as partial:
                partial.write_text("".join(f"{value}\n" for value in values), encoding="utf-8")
