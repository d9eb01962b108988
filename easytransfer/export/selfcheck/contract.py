"""Check 2: names, dtypes and shapes of every signature."""

from __future__ import annotations

from typing import Any

from ...savedmodel.failure import CheckFailed
from ...savedmodel.graph import graph_signatures

# What TensorFlow Serving's Classify and Regress calls and our own clients rely on: input and output -> dtype, ranks.
# `None` as output names: any outputs.
STRINGS, IDS, SCORES = ("string", (1,)), ("int32", (2,)), ("float32", (2,))
KNOWN_SIGNATURES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "classify": ({"inputs": STRINGS}, {"classes": ("string", (2,)), "scores": SCORES}),
    "regress": ({"inputs": STRINGS}, {"outputs": ("float32", (1, 2))}),
    "labels": ({"class_id": IDS}, {"label": ("string", (2,))}),
}
# Inputs of `predict_ids` by how their names begin (the towers of a pair add suffixes); an application may have others.
TOKEN_INPUTS = ("input_ids", "input_mask", "segment_ids")
# Outputs with one column per label.
PER_LABEL = ("probabilities", "scores", "classes")


def check_signatures(proto: Any, manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the signatures of a SavedModel that keeps to its manifest and to the known contracts.

    Raises:
        CheckFailed: Names, dtypes or shapes differ, or an axis of the batch is fixed.
    """
    tags = [sorted(meta.meta_info_def.tags) for meta in proto.meta_graphs]
    if tags != [["serve"]]:
        raise CheckFailed(f"the tag sets must be [['serve']], not {tags}")
    found = graph_signatures(proto.meta_graphs[0])
    if "serving_default" not in found:
        raise CheckFailed(f"no signature serving_default among {', '.join(sorted(found)) or 'none'}")
    declared = {
        name: {side: entry[side] for side in ("inputs", "outputs")} for name, entry in manifest["signatures"].items()
    }
    if found != declared:
        raise CheckFailed(f"signatures differ from the manifest: {_difference(found, declared)}")
    for name, signature in found.items():
        for side in ("inputs", "outputs"):
            for key, entry in signature[side].items():
                _check_entry(f"{name}.{side}.{key}", key, entry)
        if name in KNOWN_SIGNATURES:
            for side, contract in zip(("inputs", "outputs"), KNOWN_SIGNATURES[name], strict=True):
                _check_known(f"{name}.{side}", signature[side], contract)
        if name == "predict_ids":
            tokens = {key: IDS for key in signature["inputs"] if key.startswith(TOKEN_INPUTS)}
            _check_known(f"{name}.inputs", {key: signature["inputs"][key] for key in tokens}, tokens)
        _check_label_axis(name, signature["outputs"], manifest["labels"])
    return found


def _check_entry(place: str, key: str, entry: dict[str, Any]) -> None:
    if entry["shape"] is None or not entry["shape"]:
        raise CheckFailed(f"{place} must have a known rank and the batch as first axis, not shape {entry['shape']}")
    if entry["shape"][0] is not None:
        raise CheckFailed(f"{place}: the batch axis must be None, not shape {entry['shape']}")
    # JSON answers carry tensors of that name in base64.
    if key.endswith("_bytes") and entry["dtype"] != "string":
        raise CheckFailed(f"{place}: only binary strings may end in _bytes, not {entry['dtype']}")


def _check_known(place: str, found: dict[str, Any], contract: dict[str, Any] | None) -> None:
    if contract is None:
        return
    if set(found) != set(contract):
        raise CheckFailed(f"{place} must be {sorted(contract)}, not {sorted(found)}")
    for key, (dtype, ranks) in contract.items():
        entry = found[key]
        if entry["dtype"] != dtype or len(entry["shape"]) not in ranks:
            raise CheckFailed(f"{place}.{key} must be {dtype} of rank {ranks}, not {entry['dtype']} {entry['shape']}")


def _check_label_axis(name: str, outputs: dict[str, Any], labels: list[str] | None) -> None:
    for key in PER_LABEL:
        if labels and key in outputs and outputs[key]["shape"][-1] not in (None, len(labels)):
            raise CheckFailed(f"{name}.outputs.{key} has {outputs[key]['shape'][-1]} columns for {len(labels)} labels")


def _difference(found: dict[str, Any], declared: dict[str, Any]) -> str:
    if set(found) != set(declared):
        return f"{sorted(found)} in the graph, {sorted(declared)} in the manifest"
    name = next(name for name in found if found[name] != declared[name])
    return f"{name}: {found[name]} in the graph, {declared[name]} in the manifest"
