"""The manifest of an export: what it is made of, and what it must answer."""

from __future__ import annotations

import datetime
import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf

from easytransfer.export.samples import record_samples
from easytransfer.savedmodel.manifest import ABSOLUTE_PATH, file_digest, signature_digest
from easytransfer.savedmodel.rounding import ALLOWED, EPSILON, coarsest
from easytransfer.savedmodel.signature import Signature
from easytransfer.version import VERSION

FORMAT = 1
# Packages whose release can change what an export contains or answers.
PACKAGES = ("tensorflow", "tensorflow-text", "tf-keras", "tf-models-official", "tokenizers", "numpy", "protobuf")
# Files that decide how text becomes ids.
TOKENIZER_FILES = (
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("spiece.model", "sentencepiece.model", "sentencepiece.bpe.model"),
)


def build_manifest(
    facts: Mapping[str, Any],
    signatures: Mapping[str, Signature],
    declared: Mapping[str, Any],
    asset_folder: Path,
    *,
    name: str | None,
    max_batch_size: int,
    float_types: Sequence[str],
    variables: Mapping[str, Sequence[tf.Variable]],
) -> dict[str, Any]:
    """Returns everything `export.json` holds.

    Args:
        facts: What the application says about the model; `labels` and `max_length` where it has them. Of absolute
            paths only the file name is kept.
        signatures: The signatures in memory; their answers on the samples are recorded here.
        declared: Inputs and outputs of each signature as traced.
        asset_folder: The written assets.
        name: Model name, None in a flat export.
        max_batch_size: Largest batch of the warm-up requests.
        float_types: Floating-point types the graph works in.
        variables: Variables that each signature reads.
    """
    float_type = coarsest(float_types)
    assets = {path.name: file_digest(path) for path in sorted(asset_folder.glob("*"))}
    manifest: dict[str, Any] = {"labels": None, "max_length": None, "tokenizer_digest": _tokenizer_digest(assets)}
    manifest.update({key: _without_folders(value) for key, value in facts.items() if value is not None})
    return manifest | {
        "format": FORMAT,
        "name": name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "packages": package_versions(),
        "git_revision": git_revision(),
        "max_batch_size": max_batch_size,
        # What rounding explains in a usual network, as a share of the largest one of its output.
        "tolerance": ALLOWED[float_type] * EPSILON[float_type],
        "float_types": list(float_types),
        "assets": assets,
        "signatures": {key: {"doc": signatures[key].doc, **declared[key]} for key in signatures},
        "signature_digest": signature_digest(dict(declared)),
        "samples": {
            key: record_samples(signature, variables[key], float_type) for key, signature in signatures.items()
        },
    }


def package_versions() -> dict[str, str]:
    """Returns installed releases by package name, `python` and `easytransfer` among them."""
    found = {"python": platform.python_version(), "easytransfer": VERSION}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # tensorflow-cpu and other builds of TensorFlow carry another package name.
    found.setdefault("tensorflow", tf.__version__)
    return found


def git_revision() -> str | None:
    """Returns the commit of the source tree this package runs from, None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _without_folders(value: Any) -> Any:
    # Facts may hold a configuration; where its files were on the machine of the training run is nobody's business.
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and ABSOLUTE_PATH.match(value)):
        return ",".join(Path(part).name for part in str(value).split(","))
    return value


def _tokenizer_digest(assets: Mapping[str, str]) -> str | None:
    parts = [f"{name} {assets[name]}" for name in TOKENIZER_FILES if name in assets]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if parts else None
