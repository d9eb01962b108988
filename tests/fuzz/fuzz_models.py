"""Targets that read models: weights, checkpoints, labels, archives, and pictures as clients send them."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import zipfile
from typing import Any

import numpy as np
from fuzz_case import Folder, Target
from fuzz_inputs import as_json, edited, files, json_bytes, keyed, safetensors, texts, values
from hypothesis import strategies as st
from PIL import Image

from easytransfer.data.labels import LabelMap
from easytransfer.errors import EasyTransferError
from easytransfer.image.decode import load_images
from easytransfer.presets.archive import unpack
from easytransfer.presets.safetensors_file import INDEX, read_safetensors_folder
from easytransfer.train import checkpoint


def weights(given: dict[str, bytes], folder: Folder) -> None:
    """Safetensors, whole and in shards."""
    for name, content in given.items():
        folder.put(name, content)
    read_safetensors_folder(folder.path)


def checkpoints(given: dict[str, Any], folder: Folder) -> None:
    """A run folder: pointer, state and weights, the checksums made right so that what is behind them is read."""
    names = (checkpoint.WEIGHTS, checkpoint.TRAINING)
    found = {name: folder.put(f"model.ckpt-1/{name}", given[name]) for name in names}
    state = given["state"]
    if isinstance(state, dict) and given["signed"]:
        state = {**state, "files": {name: checkpoint.sha256(path) for name, path in found.items()}}
        state.pop("checksum", None)
        # As it will be read: JSON has no tuples, and texts as keys.
        state = json.loads(as_json(state))
        state = {**state, "checksum": checkpoint._checksum(state)}
    folder.put(f"model.ckpt-1/{checkpoint.STATE}", as_json(state))
    folder.put(checkpoint.POINTER, given["pointer"])
    for name in ("", "model.ckpt-best", "model.ckpt-last", "model.ckpt-1"):
        with contextlib.suppress(EasyTransferError):
            checkpoint.load(checkpoint.resolve(folder.path / name), weights_only=True)
    checkpoint.newest(folder.path, lambda text: None)
    checkpoint.load(folder.path / "model.ckpt-1")


def labels(text: str, folder: Folder) -> None:
    """The numbers of labels."""
    folder.put(LabelMap.FILE, text)
    found = LabelMap.load(folder.path)
    assert found is not None and sorted(found.ids.values()) == list(range(len(found)))


def archive(content: bytes, folder: Folder) -> None:
    """Archives: whatever is in them lands in the folder they are unpacked into."""
    target = folder.path / "target"
    folder.allow(target)
    unpack(folder.put("archive", content), target)


def picture(content: bytes, folder: Folder) -> None:
    """Encoded pictures: pixels, or the reason why there are none."""
    (found,) = load_images([content], "", channels=3, max_pixels=10_000)
    assert isinstance(found, str) or (found.dtype == np.uint8 and found.size <= 30_000)


def zipped(names: list[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as writer:
        for name in names:
            writer.writestr(name, b"content")
    return stream.getvalue()


def tarred(names: list[str], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as writer:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 7
            writer.addfile(info, io.BytesIO(b"content"))
    # Tar files are filled up to 10 KiB of zeros, where edits would change nothing.
    return stream.getvalue()[:4096] if mode == "w" else stream.getvalue()


def drawn(form: str, mode: str) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (4, 3)).save(stream, form)
    return stream.getvalue()


NAMES = [["a/config.json"], ["../x"], ["/x"], ["a", "a/b"], ["ü" * 90]]
ARCHIVES = [*map(zipped, NAMES), *(tarred(names, mode) for names in NAMES for mode in ("w", "w:gz"))]
PICTURES = [drawn("PNG", mode) for mode in ("L", "RGB", "P", "RGBA", "I;16", "1")]
PICTURES += [drawn("JPEG", mode) for mode in ("L", "RGB", "CMYK")] + [drawn("BMP", "RGB"), drawn("WEBP", "RGB")]
GOOD = b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + bytes(4)
STATE = keyed(["order", "step", "files", "checksum", "task"], st.one_of(st.just(["a"]), st.just([]), values()))
CHECKPOINTS = st.fixed_dictionaries(
    {
        checkpoint.WEIGHTS: st.one_of(st.just(GOOD), safetensors()),
        checkpoint.TRAINING: st.one_of(st.just(GOOD), safetensors()),
        "state": st.one_of(STATE, STATE, values()),
        "signed": st.booleans(),
        "pointer": st.one_of(keyed(["best", "last"]).map(as_json), texts(["model.ckpt-1", "../", '"', "{", "}"])),
    }
)
INDEXES = keyed(["weight_map"], st.one_of(st.just({"a": "a.safetensors"}), keyed(["a"]), values()))
WEIGHTS = st.one_of(
    st.fixed_dictionaries({"model.safetensors": st.one_of(safetensors(), edited([GOOD]))}),
    st.fixed_dictionaries({"a.safetensors": st.one_of(st.just(GOOD), safetensors()), INDEX: json_bytes(INDEXES)}),
)
LABELS = st.one_of(keyed(["a", "b"], st.one_of(st.integers(-1, 2), values())).map(as_json), texts(["{", "}", '"a": 0']))
MODEL_TARGETS = (
    Target("safetensors", WEIGHTS, weights),
    Target("checkpoint", CHECKPOINTS, checkpoints),
    Target("labels", LABELS, labels),
    Target("archive", files(*ARCHIVES), archive),
    Target("picture", files(*PICTURES), picture),
)
