"""A LiteRT export: the model, its assets, and how the arrays of a batch become rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.litert.interpreters import Interpreters
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.manifest import read_manifest

MODEL = "model.tflite"
# The key of the manifest that says how rows are made: `inputs` by name, each with the `array` it is cut from, the
# `mask` whose ones say how long it is, whether it is the `positions` 0, 1, 2, ..., or whether zeros behind its end are
# `trimmed`; and `padding`, what stands behind the end of shorter rows of an output, 0 where not given.
ROWS = "rows"


class LiteRtModel:
    """The signature `predict_ids` of a LiteRT export, on batches of arrays as the SavedModel takes them.

    Args:
        folder: The version folder.
        count: Interpreters; None = one for each core.

    Attributes:
        folder: The version folder.
        manifest: Content of `export.json`.
        assets: Folder with vocabulary and labels.

    Raises:
        ModelError: The folder is damaged.
        ResourceError: LiteRT is not installed.
    """

    def __init__(self, folder: Path, count: int | None = None) -> None:
        self.folder, self.assets = folder, folder / "assets"
        try:
            self.manifest = read_manifest(folder)
            self._inputs: Mapping[str, Mapping[str, Any]] = self.manifest[ROWS]["inputs"]
            self._padding: Mapping[str, float] = self.manifest[ROWS]["padding"]
            self._outputs: Mapping[str, Any] = self.manifest["signatures"]["predict_ids"]["outputs"]
        except (CheckFailed, KeyError) as error:
            raise ModelError(f"the export at {folder} cannot be loaded", received=str(error)) from error
        self.interpreters = Interpreters(folder / MODEL, count)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a batch, padded to the longest row.

        Args:
            batch: Arrays by name, rows first; masks say where rows end.

        Raises:
            ModelError: An array is missing or does not fit.
        """
        found = self.rows(batch)
        return {name: self._joined(name, [each[name] for each in found]) for name in self._outputs}

    def rows(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns the outputs of every row, [1, ...], as long as the row is; arguments and errors as of a call."""
        count = len(next(iter(batch.values())))
        try:
            return self.interpreters([self._row(batch, row) for row in range(count)])
        except KeyError as error:
            raise ModelError(f"the model needs the array {error.args[0]}", received=sorted(batch)) from error

    def close(self) -> None:
        """Ends the threads."""
        self.interpreters.close()

    def _row(self, batch: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
        """Returns the inputs for one row, without padding."""
        inputs = {}
        for name, facts in self._inputs.items():
            length = int(batch[facts["mask"]][row].sum()) if "mask" in facts else None
            if facts.get("positions"):
                inputs[name] = np.arange(length, dtype=np.int32)[None]
                continue
            value = batch[facts["array"]][row]
            if facts.get("trimmed"):
                # At least one number: an axis of length 0 is none to the interpreter.
                length = max(1, int(np.flatnonzero(value)[-1:].sum()) + 1)
            inputs[name] = np.ascontiguousarray(value[None] if length is None else value[None, :length])
        return inputs

    def _joined(self, name: str, values: list[np.ndarray]) -> np.ndarray:
        shape = self._outputs[name]["shape"]
        if not values:
            return np.zeros([size or 0 for size in shape], self._outputs[name]["dtype"])
        if len({value.shape for value in values}) == 1:
            return np.concatenate(values)
        longest = np.max([value.shape[1:] for value in values], axis=0)
        joined = np.full([len(values), *longest], self._padding.get(name, 0), values[0].dtype)
        for row, value in enumerate(values):
            joined[(row, *map(slice, value.shape[1:]))] = value[0]
        return joined
