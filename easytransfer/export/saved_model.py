"""Writes a model as a TensorFlow Serving version folder, checks it in a fresh process, and publishes it."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from easytransfer.errors import ConfigError, ModelError
from easytransfer.export.base_folder import check_base
from easytransfer.export.compiled import Rounding
from easytransfer.export.manifest import build_manifest
from easytransfer.export.samples import servable_output
from easytransfer.export.server_config import check_existing_files, update_server_files, write_atomically
from easytransfer.export.stored_weights import StoredWeight, with_stored
from easytransfer.export.validate import failed_check, validate
from easytransfer.export.warmup import write_warmup
from easytransfer.run.atomic import sync
from easytransfer.savedmodel.graph import graph_float_types, graph_signatures, read_saved_model
from easytransfer.savedmodel.manifest import MANIFEST
from easytransfer.savedmodel.signature import Signature

REPORT = "assets.extra/export_report.json"
# Where the serving containers mount the export folder.
SERVING_ROOT = "/models"
# Not a plain number, which a folder name of a version is.
_MODEL_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ExportReport:
    """What was published.

    Args:
        path: The version folder.
        version: Its number.
        checks: The checks it passed: name, ok, detail, seconds.
        latency_ms: Median milliseconds of `serving_default` by batch size.
    """

    path: Path
    version: int
    checks: list[dict[str, Any]]
    latency_ms: dict[str, float]


def export_saved_model(
    signatures: Mapping[str, Signature],
    *,
    module: tf.Module,
    base: Path,
    name: str,
    assets: Mapping[str, Path],
    manifest: Mapping[str, Any],
    max_batch_size: int = 64,
    flat: bool = False,
    serving_root: str = SERVING_ROOT,
    command: str | None = None,
    stored: Sequence[tuple[tf.Variable, StoredWeight]] = (),
    rounding: Rounding | None = None,
) -> ExportReport:
    """Exports `<base>/<name>/<next version>/`, or `<base>/<next version>/` if `flat`.

    The version appears under its number only when it is complete and has passed its checks, and is not touched again.

    Args:
        signatures: Signatures by name, `serving_default` among them.
        module: Owner of the weights. Only variables, lookup tables and assets go into the export, no optimizer.
        base: Folder of all exported models.
        name: Model name; unused if `flat`.
        assets: Further files for `assets/` by their name there, such as the list of labels.
        manifest: Facts for `export.json`: `labels`, `max_length`, `tokenizer_digest` and any others.
        max_batch_size: Largest batch of warm-up requests and of the server.
        flat: Leave out the folder of the model and the configuration files of the server.
        serving_root: Where the server sees `base`, for `models.config`.
        command: What to type to export again, for the message of a failure.
        stored: Variables that are kept in fewer bytes, and what keeps them; see `stored_weights`.
        rounding: Shapes the network is compiled for; all of them are among the warm-up requests.

    Raises:
        ConfigError: A name, a sample, `base` or an existing configuration file of the server is not usable.
        ModelError: The export does not pass its checks; nothing was published.
    """
    _check_request(signatures, name, flat, max_batch_size)
    check_base(base, flat)
    if not flat:
        check_existing_files(base)
    model_folder = base if flat else base / name
    model_folder.mkdir(parents=True, exist_ok=True)
    staging = model_folder / f".staging-{uuid.uuid4().hex}"
    try:
        write_servable(
            staging, signatures, module=module, name=None if flat else name, assets=assets, manifest=manifest,
            max_batch_size=max_batch_size, stored=stored, rounding=rounding,
        )  # fmt: skip
        report = validate(staging, staged=True)
        _raise_failure(report, command)
        write_atomically(staging / REPORT, json.dumps(report, indent=1) + "\n")
        version = publish(staging, model_folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not flat:
        update_server_files(base, name, max_batch_size=max_batch_size, serving_root=serving_root)
    return ExportReport(model_folder / str(version), version, report["checks"], report["latency_ms"])


def write_servable(
    folder: Path,
    signatures: Mapping[str, Signature],
    *,
    module: tf.Module,
    name: str | None,
    assets: Mapping[str, Path],
    manifest: Mapping[str, Any],
    max_batch_size: int,
    stored: Sequence[tuple[tf.Variable, StoredWeight]] = (),
    rounding: Rounding | None = None,
) -> None:
    """Writes all files of a version into `folder`; arguments as in `export_saved_model`.

    Raises:
        ModelError: A signature uses a variable or table nobody owns, or two assets share a name.
    """
    functions = {key: trace(signature) for key, signature in signatures.items()}
    owners = [module, *(signature.module for signature in signatures.values() if signature.module is not None)]
    try:
        served = {key: with_stored(function, stored) for key, function in functions.items()}
        tf.saved_model.save(_inference_module(owners, functions, stored), str(folder), signatures=served)
    except (AssertionError, ValueError) as error:
        raise ModelError(
            "the model cannot be saved for serving",
            received=str(error).split("\n")[0],
            fix="every variable, lookup table and asset a signature uses must belong to `module` or `Signature.module`",
        ) from error
    copy_assets(folder / "assets", assets)
    (folder / "assets.extra").mkdir()
    proto = read_saved_model(folder)
    content = build_manifest(
        manifest, signatures, graph_signatures(proto.meta_graphs[0]), folder / "assets", name=name,
        max_batch_size=max_batch_size, float_types=graph_float_types(proto),
        variables={key: function.variables for key, function in functions.items()},
    )  # fmt: skip
    write_atomically(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_warmup(folder, name or "default", signatures, max_batch_size, rounding)


def publish(staging: Path, model_folder: Path) -> int:
    """Renames a complete folder to the next version number and returns it; safe against other exports at once."""
    for path in staging.rglob("*"):
        sync(path)
    sync(staging)
    while True:
        version = max(published_versions(model_folder), default=0) + 1
        try:
            # A folder with files in it is never replaced: the loser of a race gets an error and takes the next number.
            staging.rename(model_folder / str(version))
        except OSError:
            if not (model_folder / str(version)).exists():
                raise
            continue
        sync(model_folder)
        return version


def published_versions(model_folder: Path) -> list[int]:
    """Returns version numbers in a model folder, ascending."""
    return sorted(int(path.name) for path in model_folder.glob("*") if re.fullmatch(r"[1-9]\d*", path.name))


def _check_request(signatures: Mapping[str, Signature], name: str, flat: bool, max_batch_size: int) -> None:
    if not flat and not _MODEL_NAME.fullmatch(name):
        accepted = "letters, digits, `.`, `_` and `-`, not only digits"
        raise ConfigError("unusable model name for an export", received=name, accepted=accepted)
    if max_batch_size < 1:
        raise ConfigError("max_batch_size must be at least 1", received=max_batch_size)
    if "serving_default" not in signatures:
        raise ConfigError("an export needs the signature serving_default", received=sorted(signatures))
    for key, signature in signatures.items():
        if set(signature.samples) != set(signature.inputs) or len({len(v) for v in signature.samples.values()}) != 1:
            raise ConfigError(
                f"signature {key}: samples must give equally many rows for every input",
                received={name: len(value) for name, value in signature.samples.items()},
                accepted=sorted(signature.inputs),
            )
        if not len(next(iter(signature.samples.values()))):
            raise ConfigError(f"signature {key} has no sample row")


def trace(signature: Signature) -> Any:
    """Returns the traced function of a signature."""

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = signature.function(**inputs)
        return {key: tf.identity(servable_output(value), name=key) for key, value in outputs.items()}

    specs = {key: tf.TensorSpec(spec.shape, spec.dtype, name=key) for key, spec in signature.inputs.items()}
    return tf.function(serve).get_concrete_function(**specs)


def _inference_module(
    owners: list[tf.Module], functions: Mapping[str, Any], stored: Sequence[tuple[tf.Variable, StoredWeight]]
) -> tf.Module:
    """Returns a module that holds what the functions use and nothing of training: no optimizer, no Keras layers."""
    held = tf.Module(name="servable")
    used = {v.ref(): v for function in functions.values() for v in function.variables}
    held.stored = [weight for variable, weight in stored if used.pop(variable.ref(), None) is not None]
    held.weights = [*used.values(), *(part for weight in held.stored for part in weight.variables)]
    kept = (tf.saved_model.Asset, tf.saved_model.experimental.TrackableResource)
    found = {id(part): part for owner in owners for part in tf.train.TrackableView(owner).descendants()}
    held.resources = [part for part in found.values() if isinstance(part, kept)]
    return held


def copy_assets(folder: Path, assets: Mapping[str, Path]) -> None:
    """Copies files into `folder` by the names they get there.

    Raises:
        ConfigError: A name is none of a file.
        ModelError: Another file of that name is there.
    """
    folder.mkdir(exist_ok=True)
    for name, source in assets.items():
        if Path(name).name != name:
            raise ConfigError("the name of an asset is a plain file name", received=name)
        target = folder / name
        if target.exists() and target.read_bytes() != Path(source).read_bytes():
            raise ModelError(f"the graph and the application bring different files named {name}")
        shutil.copyfile(source, target)


def _raise_failure(report: Mapping[str, Any], command: str | None) -> None:
    failed = failed_check(dict(report))
    if failed:
        again = f" with: {command}" if command else ""
        raise ModelError(
            f"the export fails its check `{failed['name']}`",
            received=failed["detail"],
            fix="nothing was published; the weights are kept, and predict and evaluate work with them; where exports "
            f"fail again, report this line with the run's run.json and report.json; export again{again}",
        )
