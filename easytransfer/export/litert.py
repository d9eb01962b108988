"""Writes a network as a LiteRT model beside its assets and manifest, and checks that it answers like the network."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.errors import ConfigError, ModelError
from easytransfer.export.base_folder import check_base
from easytransfer.export.manifest import build_manifest
from easytransfer.export.saved_model import REPORT, ExportReport, copy_assets, publish, trace
from easytransfer.export.server_config import write_atomically
from easytransfer.litert.model import MODEL, ROWS, LiteRtModel
from easytransfer.savedmodel.array_json import decode_array, take_rows
from easytransfer.savedmodel.manifest import MANIFEST
from easytransfer.savedmodel.signature import Signature

# Largest difference of the float32 model from the network, as a share of the largest number of an output above 1.
TOLERANCE = 1e-5
_REPEATS = 5


def export_litert(
    function: Callable[..., Mapping[str, tf.Tensor]],
    specs: Mapping[str, tf.TensorSpec],
    rows: Mapping[str, Any],
    *,
    int8: bool,
    signatures: Mapping[str, Signature],
    module: tf.Module,
    base: Path,
    name: str,
    assets: Mapping[str, Path],
    manifest: Mapping[str, Any],
    max_batch_size: int,
    flat: bool = False,
) -> ExportReport:
    """Exports `<base>/<name>/<next version>/`, or `<base>/<next version>/` if `flat`.

    Args:
        function: Computes one row: takes named tensors and returns the outputs of `predict_ids`.
        specs: Shape and dtype of its inputs; the first axis is 1.
        rows: How arrays become its inputs, see `easytransfer.litert.model.ROWS`.
        int8: Whether matrices become whole numbers of eight bits, with a scale for each of their outputs, and are
            multiplied as such (dynamic range quantization).
        signatures: Of the SavedModel, `predict_ids` among them; their samples and answers go into the manifest.
        module: Owner of the weights.
        base: Folder of all exported models.
        name: Model name; unused if `flat`.
        assets: Files for `assets/` by their name there.
        manifest: Facts for `export.json`.
        max_batch_size: Rows of the larger batch that is timed.
        flat: Leave out the folder of the model.

    Raises:
        ConfigError: LiteRT has no such operators.
        ModelError: The model does not answer like the network; nothing was published.
    """
    check_base(base, flat)
    model_folder = base if flat else base / name
    model_folder.mkdir(parents=True, exist_ok=True)
    staging = model_folder / f".staging-{uuid.uuid4().hex}"
    try:
        (staging / "assets.extra").mkdir(parents=True)
        copy_assets(staging / "assets", assets)
        content = build_manifest(
            {**manifest, ROWS: rows}, signatures, {key: declared(each) for key, each in signatures.items()},
            staging / "assets", name=None if flat else name, max_batch_size=max_batch_size,
            float_types=["float32"], variables=dict.fromkeys(signatures, ()),
        )  # fmt: skip
        write_atomically(staging / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        (staging / MODEL).write_bytes(converted(function, specs, module, int8=int8))
        report = _checked(staging, content, int8=int8)
        write_atomically(staging / REPORT, json.dumps(report, indent=1) + "\n")
        version = publish(staging, model_folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportReport(model_folder / str(version), version, report["checks"], report["latency_ms"])


def converted(
    function: Callable[..., Mapping[str, tf.Tensor]],
    specs: Mapping[str, tf.TensorSpec],
    module: tf.Module,
    *,
    int8: bool,
) -> bytes:
    """Returns a function as the bytes of a LiteRT model with one signature; arguments as of `export_litert`.

    Raises:
        ConfigError: LiteRT has no such operators.
    """
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()}
    traced = tf.function(lambda **inputs: dict(function(**inputs))).get_concrete_function(**named)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        return converter.convert()
    except Exception as error:  # the converter's own class, which is private
        lines = [line.strip() for line in str(error).splitlines() if "ops:" in line or "error:" in line]
        raise ConfigError(
            "LiteRT cannot compute this network",
            received=(lines or str(error).splitlines() or [type(error).__name__])[0][:300],
            fix="leave litert and litert-int8 out of exportVariants",
        ) from error


def declared(signature: Signature) -> dict[str, Any]:
    """Returns inputs and outputs (dtype, shape with None for unknown) of a signature, as those of a graph are."""
    outputs = trace(signature).structured_outputs
    sides = {"inputs": signature.inputs, "outputs": outputs}
    return {
        side: {key: {"dtype": each.dtype.name, "shape": each.shape.as_list()} for key, each in found.items()}
        for side, found in sides.items()
    }


def _checked(folder: Path, manifest: Mapping[str, Any], *, int8: bool) -> dict[str, Any]:
    """Returns the report of the checks and the latency by number of rows.

    Raises:
        ModelError: The float32 model differs from the network on the samples.
    """
    begin, model = time.monotonic(), LiteRtModel(folder)
    samples = manifest["samples"]["predict_ids"]
    inputs = {key: decode_array(value) for key, value in samples["inputs"].items()}
    count = len(next(iter(inputs.values())))
    wanted = {key: decode_array(value) for key, value in samples["outputs"][str(count)].items()}
    # The network computes something behind the end of shorter rows, which nobody reads.
    largest = max(
        (
            difference(found[key], wanted[key][row : row + 1][tuple(map(slice, found[key].shape))])
            for row, found in enumerate(model.rows(inputs))
            for key in wanted
        ),
        default=0.0,
    )
    if not int8 and not largest <= TOLERANCE:
        raise ModelError(
            "the LiteRT model differs from the network on the sample rows",
            received=f"{largest:.2g}",
            accepted=f"at most {TOLERANCE} of the largest number",
            fix="nothing was published; report this line with the run's run.json",
        )
    seconds = round(time.monotonic() - begin, 3)
    pieces = f"computed by XNNPACK in {model.interpreters.delegates()} piece(s)"
    checks = [{"name": "samples", "ok": True, "detail": f"largest difference {largest:.2g}", "seconds": seconds}]
    checks.append({"name": "delegate", "ok": True, "detail": pieces, "seconds": 0.0})
    latency = {str(n): _milliseconds(model, take_rows(inputs, n)) for n in (1, manifest["max_batch_size"])}
    model.close()
    return {"ok": True, "checks": checks, "latency_ms": latency}


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Returns the largest difference, as a share of the largest number above 1; infinite where shapes differ.

    Numbers of 1e8 and more stand for minus infinity where something is masked, and whole numbers for a choice: neither
    is compared.
    """
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.dtype.kind != "f":
        return 0.0
    real = np.abs(wanted) < 1e8
    scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0, where=real)))
    return float(np.max(np.abs(found - wanted), initial=0.0, where=real)) / scale


def _milliseconds(model: LiteRtModel, batch: Mapping[str, np.ndarray]) -> float:
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        model(batch)
        times.append(time.perf_counter() - begin)
    return round(float(np.median(times)) * 1e3, 2)
