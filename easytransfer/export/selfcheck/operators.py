"""Check 3: the graph holds only operators that a server links, and nothing tied to this machine or to training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ...savedmodel.failure import CheckFailed
from ...savedmodel.graph import graph_operators, load_needed_operators, nodes
from ...savedmodel.manifest import ABSOLUTE_PATH

# Newer than the tf.Text that released servers link.
NOT_IN_SERVER = ("TFText>Utf8Binarize",)
# The saver puts its own operators on the CPU; any other device name ties the graph to a machine.
SAVER_DEVICES = ("", "/device:CPU:0", "/device:CPU:*")


def check_operators(proto: saved_model_pb2.SavedModel, folder: Path) -> str:
    """Returns a summary of the operators of a graph that can be served.

    Raises:
        CheckFailed: Forbidden operators, device names, absolute paths or assets outside the export.
    """
    extra = load_needed_operators(proto)
    if newer := sorted(graph_operators(proto).intersection(NOT_IN_SERVER)):
        raise CheckFailed(f"operators that a server does not run: {', '.join(newer)}")
    devices = sorted({node.device for node in nodes(proto)} - set(SAVER_DEVICES))
    if devices:
        raise CheckFailed(f"device names in the graph: {', '.join(devices)}")
    paths = sorted({text for node in nodes(proto) for text in _scalar_texts(node) if ABSOLUTE_PATH.match(text)})
    if paths:
        raise CheckFailed(f"absolute paths in the graph: {', '.join(paths)}")
    for name in (asset.filename for meta in proto.meta_graphs for asset in meta.asset_file_def):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CheckFailed(f"asset path leaves the export: {name}")
        if not (folder / "assets" / name).is_file():
            raise CheckFailed(f"the graph reads assets/{name}, which is missing")
    text = f", {len(extra)} of tf.Text ({', '.join(sorted(extra))})" if extra else ""
    return f"{len(graph_operators(proto))} operators{text}"


def _scalar_texts(node: Any) -> Iterator[str]:
    # Only scalars can be file names; vectors of strings are vocabularies and label lists.
    if node.op == "Const" and node.attr["dtype"].type == tf.string.as_datatype_enum:
        tensor = node.attr["value"].tensor
        if not tensor.tensor_shape.dim:
            yield from (value.decode(errors="replace") for value in tensor.string_val)
