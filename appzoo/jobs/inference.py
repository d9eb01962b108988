"""Model calls over encoded tables: batches sorted by length, outputs back in row order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from easytransfer.app.contract import App
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.deferred import tf
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.precision import compiles

# Batches that a worker takes at a time.
TOGETHER = 64

Call = Callable[[dict[str, np.ndarray]], dict[str, Any]]


def traced_once(
    function: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
    runtime: RuntimeConfig,
    declared: Mapping[str, tf.TensorSpec] | None = None,
) -> Call:
    """Returns `function` as one graph for NumPy batches of every width.

    A graph of its own for the first shapes would round differently, and a job that was killed and goes on would then
    not write the bytes of an unbroken one.

    Args:
        function: Takes tensors by name.
        runtime: Says whether XLA compiles it.
        declared: Shapes of arrays; of others, integers may have any shape, and the rest any number of rows.
    """
    graphs: list[tf.types.experimental.GenericFunction] = []

    def call(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        if not graphs:
            known = declared or {}
            specs = {
                name: known[name] if name in known else tf.TensorSpec(_open_shape(value), value.dtype)
                for name, value in batch.items()
            }
            options = {"input_signature": [specs], "jit_compile": True if compiles(runtime) else None}
            graphs.append(tf.function(function, **options))
        found = graphs[0]({name: tf.constant(value) for name, value in batch.items()})
        return {name: value.numpy() for name, value in found.items() if tf.is_tensor(value)}

    return call


def _open_shape(value: np.ndarray) -> list[int | None]:
    ids = value.dtype in (np.int32, np.int64)
    return [None if ids or not axis else size for axis, size in enumerate(value.shape)]


def evaluated(
    app: App,
    table: EncodedTable,
    call: Call,
    batch_size: int,
    pad_multiple: int = 1,
    workers: Workers = ONE_WORKER,
    done: Callable[[float], None] | None = None,
) -> Evaluator:
    """Returns the evaluator of an application after every row of a table; no output is kept.

    Args:
        app: Application.
        table: Encoded labelled rows.
        call: Takes a batch and returns named arrays, rows first.
        batch_size: Rows per call.
        pad_multiple: Widths are rounded up to a multiple of this.
        workers: Share the batches, which are those of one worker; each has the whole table.
        done: Is told after each batch which part of this worker's share, 0 to 1, has been through the model.
    """
    return evaluated_with_outputs(app, table, call, batch_size, pad_multiple, workers, done=done)[0]


def evaluated_with_outputs(
    app: App,
    table: EncodedTable,
    call: Call,
    batch_size: int,
    pad_multiple: int = 1,
    workers: Workers = ONE_WORKER,
    *,
    keep: int = 0,
    done: Callable[[float], None] | None = None,
) -> tuple[Evaluator, dict[str, np.ndarray]]:
    """Returns the evaluator, and the outputs of the first `keep` examples in their order; see `outputs_in_order`."""
    evaluator, batches = app.evaluator(), _share(_batches(table, batch_size), workers.rank, workers.size)
    kept: list[np.ndarray] = []
    parts: dict[str, list[np.ndarray]] = {}
    for number, rows in enumerate(batches, start=1):
        batch = table.batch(rows, pad_multiple=pad_multiple)
        outputs = call(batch)
        evaluator.update(batch, outputs)
        if (first := rows < keep).any():
            kept.append(rows[first])
            for name, value in outputs.items():
                parts.setdefault(name, []).append(np.asarray(value)[first])
        if done is not None:
            done(number / len(batches))
    if workers.size > 1:
        states, evaluator = workers.gather(evaluator.state()), app.evaluator()
        for state in states:
            evaluator.merge(state)
    back = np.argsort(np.concatenate(kept)) if kept else None
    return evaluator, {name: _join(values)[back] for name, values in parts.items()}


def outputs_in_order(
    table: EncodedTable,
    call: Call,
    batch_size: int,
    pad_multiple: int = 1,
    done: Callable[[float], None] | None = None,
) -> dict[str, np.ndarray]:
    """Calls a model on every row and returns its outputs in the order of the table.

    Rows are batched by length, so that little padding is computed. Outputs whose trailing shape depends on the batch
    (per-token ones) come back as object arrays with one array per row.

    Args:
        table: Encoded rows.
        call: Takes a batch and returns named arrays, rows first.
        batch_size: Rows per call.
        pad_multiple: Widths are rounded up to a multiple of this.
        done: Is told after each batch which share of the examples, 0 to 1, has been through the model.
    """
    batches = _batches(table, batch_size)
    parts: dict[str, list[np.ndarray]] = {}
    for number, rows in enumerate(batches, start=1):
        for name, value in call(table.batch(rows, pad_multiple=pad_multiple)).items():
            parts.setdefault(name, []).append(np.asarray(value))
        if done is not None:
            done(number / len(batches))
    back = np.argsort(row_order(table, batch_size))
    return {name: _join(values)[back] for name, values in parts.items()}


def row_order(table: EncodedTable, batch_size: int) -> np.ndarray:
    """Returns the numbers of the examples in the order in which one worker evaluates them."""
    return np.concatenate([np.zeros(0, np.int64), *_batches(table, batch_size)])


def _batches(table: EncodedTable, size: int) -> list[np.ndarray]:
    """Returns examples by length, those of one row next to each other."""
    order = np.argsort(table.row_lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def _share(batches: list[np.ndarray], rank: int, workers: int) -> list[np.ndarray]:
    """Returns a worker's batches: many that follow each other at a time, so that few rows have windows in two shares,
    and often enough that all get short and long ones."""
    together = max(1, min(TOGETHER, len(batches) // (4 * workers)))
    return [rows for i, rows in enumerate(batches) if i // together % workers == rank]


def _join(values: list[np.ndarray]) -> np.ndarray:
    if len({value.shape[1:] for value in values}) == 1:
        return np.concatenate(values)
    rows = [row for value in values for row in value]
    joined = np.empty(len(rows), object)
    joined[:] = rows
    return joined
