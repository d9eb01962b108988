"""Weight files in the safetensors format: readable without any framework, and without running code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from easytransfer.presets.weight_values import one_spelling, unread_type

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads every tensor of one file.

    Raises:
        ModelError: The file is missing, cut short, not in the format, or holds numbers that NumPy has no type for.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)

        return load_file(str(path))
    except AttributeError as error:  # safetensors looks the type up in NumPy
        raise unread_type(str(error.name), _first_of(str(error.name), path), str(path)) from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", fix="the file is incomplete or damaged; copy it again"
        ) from None


def count_numbers(path: str | Path) -> int:
    """Returns how many numbers the tensors of one file have, from its heading alone.

    Raises:
        ModelError: The file is missing, cut short or not in the format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}", fix="copy the file again") from None


def _first_of(dtype: str, path: str | Path) -> str:
    """Returns the name of the first tensor whose type begins like `dtype`, which safetensors shortens to `F8_E4M3`."""
    from safetensors import safe_open

    with safe_open(str(path), "np") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            kind = file.get_slice(name).get_dtype()
            if dtype.replace("float", "F").upper().startswith(kind):
                return name
    return "unknown"


def read_safetensors_folder(folder: str | Path) -> dict[str, np.ndarray]:
    """Reads `model.safetensors`, or the shards listed in `model.safetensors.index.json`.

    Raises:
        ModelError: A file is missing or damaged; two shards disagree about a tensor.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return read_safetensors(folder / WEIGHTS)
    tensors: dict[str, np.ndarray] = {}
    for shard in shards_of(folder):
        found = read_safetensors(folder / shard)
        for name in tensors.keys() & found.keys():
            both = {name: tensors[name], f"{name} in {shard}": found[name]}
            one_spelling(list(both), both, str(folder))
        tensors.update(found)
    return tensors


def shards_of(folder: str | Path) -> list[str]:
    """Returns the names of the files that `model.safetensors.index.json` spreads the tensors over.

    Raises:
        ModelError: The index is missing, damaged, or names something else than files beside it.
    """
    index = Path(folder) / INDEX
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(_is_file_name(name) for name in shards.values()):
        raise ModelError(
            f"{index} needs a weight_map of file names",
            received=None if not isinstance(shards, dict) else next(n for n in shards.values() if not _is_file_name(n)),
            accepted="tensor names to names of files in the same folder",
            fix="copy the index again",
        )
    return sorted(set(shards.values()))


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name != ".." and "\0" not in name


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors in a file that `transformers` and other readers accept."""
    from safetensors.numpy import save_file

    # transformers refuses files without this remark on which framework's layout they have.
    # Not `ascontiguousarray`, which gives a single number an axis.
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    save_file(arrays, str(path), metadata={"format": "pt"})
