"""Weight files of PyTorch (`.pth`), read without running the pickle inside them.

Two containers are read: the zip archive that `torch.save` writes since version 1.6, and the older sequence of pickles
followed by the numbers. Numbers are little-endian in both.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.torch_pickle import Bounded, Machine, Refused, Storage, Tensor

# What the older form begins with, as `torch/serialization.py` writes it: a pickled number, then a version.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_OLD_BEGINNING = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."
# Weights that are tied share their numbers, once or twice; a file of nothing but shared numbers would fill the memory.
_MOST_SHARING = 4
# What the standard library raises for files that are cut short, encrypted, or made to deceive it.
_DAMAGED = (zipfile.BadZipFile, struct.error, EOFError, KeyError, ValueError, OverflowError, RuntimeError)


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a PyTorch module.

    Args:
        path: A file that `torch.save(module.state_dict(), path)` wrote.

    Returns:
        Arrays by name, in the file's order, each with numbers of its own; bfloat16 as `ml_dtypes` has it.

    Raises:
        ModelError: The file is missing, cut short, damaged or of neither form; it holds something else than tensors by
            name; or its pickle asks for something that a state dict has no use for.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            old = file.read(len(_OLD_BEGINNING)) == _OLD_BEGINNING
            file.seek(0)
            if old:
                return _of_pickles(file, path)
            if not zipfile.is_zipfile(file):
                raise Refused("it is no file of torch.save")
            with zipfile.ZipFile(file) as archive:
                return _of_archive(archive, path)
    except Refused as refused:
        raise ModelError(
            f"{path} is not read: {refused}", accepted="a state dict: tensors by name, nothing else"
        ) from None
    except _DAMAGED as error:
        raise ModelError(
            f"{path} cannot be read: {error or type(error).__name__}",
            fix="the file is incomplete or damaged; copy it again",
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None


def _of_archive(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    """Reads the zip form: `<name>/data.pkl`, the numbers of a storage in `<name>/data/<key>`."""
    size = path.stat().st_size
    # All lies in one folder, whose name is free.
    files = {"/".join(PurePosixPath(info.filename).parts[1:]): info for info in archive.infolist()}
    if "constants.pkl" in files:
        raise Refused("it is a program of TorchScript")
    if "data.pkl" not in files:
        raise Refused("it is a zip archive without data.pkl, which no state dict is")
    for name, info in files.items():
        if max(info.file_size, info.compress_size) > size:
            raise Refused(f"its entry {name} is larger than the file")
        if info.compress_type != zipfile.ZIP_STORED:
            raise Refused(f"its entry {name} is compressed, which torch.save never does")
    if "byteorder" in files and archive.read(files["byteorder"]) != b"little":
        raise Refused("its numbers are big-endian")
    with archive.open(files["data.pkl"]) as stream:
        tensors = _state_dict(Machine().run(Bounded(stream)))

    def numbers(storage: Storage) -> bytes:
        info = files[f"data/{storage.key}"]
        if info.file_size != storage.count * storage.dtype.itemsize:
            raise Refused(
                f"storage {storage.key} has {info.file_size} bytes for {storage.count} {storage.dtype} numbers"
            )
        return archive.read(info)

    return _arrays(tensors, numbers, path)


def _of_pickles(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    """Reads the older form: magic number, version, facts of the machine, the state dict, keys, then the numbers."""
    stream = Bounded(file)
    version, system = [Machine().run(stream) for _ in range(3)][1:]
    if version != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused(f"its version is not {PROTOCOL}, or its numbers are big-endian")
    machine = Machine()
    tensors = _state_dict(machine.run(stream))
    keys = Machine().run(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("the list of its storages is none")
    if sorted(keys) != sorted(machine.storages):
        raise Refused("the list of its storages differs from those that tensors name")
    size, places = path.stat().st_size, {}
    for key in keys:
        storage = machine.storages[key]
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if count != storage.count:
            raise Refused(f"storage {key} has {count} numbers, its tensors say {storage.count}")
        places[key] = file.tell()
        end = places[key] + count * storage.dtype.itemsize
        if end > size:
            raise EOFError(f"it has {size} bytes, and storage {key} ends at {end}")
        file.seek(end)
    if file.tell() != size:
        raise Refused(f"it has {size} bytes, and its tensors need {file.tell()}")

    def numbers(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return _exactly(file, storage.count * storage.dtype.itemsize)

    return _arrays(tensors, numbers, path)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"it ends {count - len(data)} bytes early")
    return data


def _arrays(tensors: dict[str, Tensor], numbers: Callable[[Storage], bytes], path: Path) -> dict[str, np.ndarray]:
    """Reads each storage once and copies tensors out of it, in the order of the state dict."""
    total = sum(math.prod(tensor.size) * tensor.storage.dtype.itemsize for tensor in tensors.values())
    most = _MOST_SHARING * path.stat().st_size
    if total > most:
        raise Refused(f"its tensors need {total} bytes, more than {_MOST_SHARING} times its size")
    by_storage: dict[Storage, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage, []).append(name)
    found = {}
    for storage, names in by_storage.items():
        values = np.frombuffer(numbers(storage), storage.dtype)
        found.update({name: tensors[name].of(values) for name in names})
    return {name: found[name] for name in tensors}


def _state_dict(value: Any) -> dict[str, Tensor]:
    if not isinstance(value, dict):
        raise Refused(f"it holds a {type(value).__name__} in place of a state dict")
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor):
            raise Refused(f"its entry {name} is a {type(tensor).__name__} and no tensor")
    return value
