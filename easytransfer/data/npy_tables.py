"""Tables as folders of NumPy arrays: one `.npy` file per column and shard, for vectors that go on into programs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.data.table_writer import TableWriter
from easytransfer.errors import ConfigError
from easytransfer.run.atomic import sync

INDEX = "index.json"


class NpzWriter(TableWriter):
    """One `.npz` file without compression; `join_npy` makes a shard of it. Texts become arrays of type `U`."""

    def _start(self) -> None:
        self._batches: list[dict[str, np.ndarray]] = []

    def _write(self, batch: dict[str, Any], rows: int) -> None:
        self._batches.append({name: _array(name, batch[name]) for name in self.columns})

    def _finish(self) -> None:
        if not self._open:
            return
        columns = {name: np.concatenate([batch[name] for batch in self._batches]) for name in self.columns}
        with open(self._temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **columns)


def join_npy(sources: Sequence[Path], target: Path, columns: Sequence[str]) -> None:
    """Writes a folder with `<column>-<shard>-of-<shards>.npy` and `index.json` that replaces `target` when complete.

    Args:
        sources: Files of `NpzWriter`, or folders this function wrote, in the order of their rows.
        target: The folder.
        columns: Columns, for a table without rows.
    """
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        draft.chmod(0o755)
        shards = sum(_count(source) for source in sources)
        index: dict[str, Any] = {"rows": 0, "shards": shards, "columns": {name: None for name in columns}}
        for number, shard in enumerate(shard for source in sources for shard in npy_shards(source)):
            for name, values in shard.items():
                np.save(draft / f"{name}-{number:05d}-of-{shards:05d}.npy", values, allow_pickle=False)
                index["columns"][name] = {"dtype": values.dtype.kind, "shape": list(values.shape[1:])}
            index["rows"] += len(next(iter(shard.values())))
        (draft / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        for path in draft.iterdir():
            sync(path)
        if target.is_dir():
            shutil.rmtree(target)
        draft.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_npy(folder: str | Path) -> dict[str, np.ndarray]:
    """Returns all columns of a folder that `join_npy` wrote, each as one array [rows, ...]."""
    shards = list(npy_shards(folder))
    return {name: np.concatenate([shard[name] for shard in shards]) for name in (shards[0] if shards else {})}


def _array(name: str, values: Any) -> np.ndarray:
    try:
        array = values if isinstance(values, np.ndarray) and values.dtype != object else np.asarray(list(values))
    except ValueError:
        array = np.zeros(0, object)
    if array.dtype == object:
        raise ConfigError(f"values of column {name!r} differ in shape, which .npy files cannot hold", fix="use TSV")
    return array


def _count(source: Path) -> int:
    return json.loads((source / INDEX).read_text(encoding="utf-8"))["shards"] if source.is_dir() else 1


def npy_shards(source: str | Path) -> Iterator[dict[str, np.ndarray]]:
    """Yields the columns of each shard of a folder that `join_npy` wrote, or of one file of `NpzWriter`."""
    source = Path(source)
    if source.is_dir():
        index = json.loads((source / INDEX).read_text(encoding="utf-8"))
        for number in range(index["shards"]):
            names = {name: f"{name}-{number:05d}-of-{index['shards']:05d}.npy" for name in index["columns"]}
            yield {name: np.load(source / file, allow_pickle=False) for name, file in names.items()}
    else:
        with np.load(source, allow_pickle=False) as arrays:
            yield {name: arrays[name] for name in arrays.files}
