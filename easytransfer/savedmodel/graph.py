"""The graph of a SavedModel: its operators and signatures, read without running it."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from .failure import CheckFailed

# Python functions, other processes and other machines, and files: whoever runs a SavedModel runs its operators, with
# the rights of the process. Serving has none of them; assets are read by lookup tables, weights by the saver.
FORBIDDEN = re.compile(
    r"(Eager)?PyFunc(Stateless)?|.*(Horovod|Collective|Nccl|AllReduce|TPU|PyCall).*|_?(Host)?(Send|Recv)"
    r"|(Read|Write|Delete)File|MatchingFiles|ImmutableConst|.*Reader(V\d)?|.*Dataset(V\d)?|DataService.*|.*Rpc.*"
    r"|Print(V2)?|Write.*Summary|.*Summary(File|Db)Writer"
)


def read_saved_model(folder: Path) -> saved_model_pb2.SavedModel:
    """Returns the parsed `saved_model.pb`.

    Raises:
        CheckFailed: It is not a SavedModel.
    """
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # DecodeError lives in different modules of different protobuf releases
        raise CheckFailed(f"saved_model.pb cannot be parsed: {error}") from error
    return proto


def graph_operators(proto: saved_model_pb2.SavedModel) -> set[str]:
    """Returns names of all operators in graphs and their function libraries."""
    functions = {f.signature.name for meta in proto.meta_graphs for f in meta.graph_def.library.function}
    return {node.op for node in nodes(proto)} - functions


def graph_float_types(proto: saved_model_pb2.SavedModel) -> list[str]:
    """Returns names of the floating-point types that operators of the graph work in."""
    found = {attribute.type for node in nodes(proto) for attribute in node.attr.values() if attribute.type}
    return sorted(kind.name for kind in map(tf.dtypes.as_dtype, found) if kind.is_floating)


def registered_operators() -> set[str]:
    """Returns names of all operators this process knows."""
    listed = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return {op.name for op in listed.op}


def text_libraries() -> list[str]:
    """Returns the operator libraries of the installed tensorflow_text, without importing its Python package."""
    spec = importlib.util.find_spec("tensorflow_text")
    if spec is None or spec.origin is None:
        return []
    return sorted(str(path) for path in (Path(spec.origin).parent / "python" / "ops").glob("*.so"))


def load_needed_operators(proto: saved_model_pb2.SavedModel) -> set[str]:
    """Makes the operators of a graph known to this process; they come from TensorFlow or from tf.Text.

    Returns:
        The operators of the graph that belong to tf.Text.

    Raises:
        CheckFailed: An operator belongs to neither, or reaches beyond the model.
    """
    used = graph_operators(proto)
    if forbidden := sorted(filter(FORBIDDEN.fullmatch, used)):
        raise CheckFailed(f"operators that a server does not run: {', '.join(forbidden)}")
    text = _text_operators()
    unknown = sorted(used - registered_operators())
    if unknown:
        installed = "" if text else "; tensorflow_text is not installed"
        raise CheckFailed(f"neither TensorFlow nor tf.Text has the operators {', '.join(unknown)}{installed}")
    return {op for op in used if op.replace(">", "_") in text}


def graph_signatures(meta: Any) -> dict[str, Any]:
    """Returns inputs and outputs (dtype, shape with None for unknown) of every signature of a meta graph."""
    return {
        name: {
            side: {key: _describe(info) for key, info in getattr(signature, side).items()}
            for side in ("inputs", "outputs")
        }
        for name, signature in meta.signature_def.items()
        if not name.startswith("__")
    }


@functools.cache
def _text_operators() -> frozenset[str]:
    # Loading a library returns a module with one function per operator, `>` in its name replaced.
    modules = [vars(tf.load_op_library(library)) for library in text_libraries()]
    return frozenset(name for module in modules for name, value in module.items() if inspect.isfunction(value))


def nodes(proto: saved_model_pb2.SavedModel) -> Iterator[Any]:
    """Yields every node of the graphs and of their function libraries."""
    for meta in proto.meta_graphs:
        yield from meta.graph_def.node
        for function in meta.graph_def.library.function:
            yield from function.node_def


def _describe(info: Any) -> dict[str, Any]:
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else [dim.size if dim.size >= 0 else None for dim in shape.dim]
    return {"dtype": tf.dtypes.as_dtype(info.dtype).name, "shape": dims}
