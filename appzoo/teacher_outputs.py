"""Outputs of a frozen network for a whole table, for methods that ask a teacher again and again about the same rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from easytransfer.app.frozen import Frozen
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.distributed.workers import Workers
from easytransfer.run.atomic import atomic_path

# Values of a column that are hashed at a time.
_BLOCK = 1 << 20


def teacher_logits(
    frozen: Frozen,
    table: EncodedTable,
    batch_size: int,
    new: Callable[[tuple[int, ...]], np.ndarray] | None = None,
    output: str = "logits",
) -> np.ndarray:
    """Returns the logits for all examples of a table, float32 [examples, classes], in their order.

    Examples of like length are in one batch, so that little padding is computed.

    Args:
        frozen: Gives `output` for the arrays of a batch.
        table: Examples as the training has them.
        batch_size: Examples of a call.
        new: Makes the array of a shape that the logits go to; None makes one in memory.
        output: Name of the output that is wanted, where it is another one of one vector a row.
    """
    new = new or (lambda shape: np.empty(shape, np.float32))

    def call(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return frozen(batch)[output]

    function, found = tf.function(call, reduce_retracing=True), None
    order = np.argsort(table.row_lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = {name: tf.constant(x) for name, x in table.batch(rows).items() if x.dtype != object}
        logits = function(batch).numpy()
        if found is None:
            found = new((len(order), *logits.shape[1:]))
        found[rows] = logits
    return np.zeros((0, 0), np.float32) if found is None else found


def outputs_of_machine(
    frozen: Frozen, table: EncodedTable, config: JobConfig, run_dir: Path, workers: Workers, output: str = "logits"
) -> np.ndarray:
    """Returns what `cached_logits` does, asked once on every machine, before a training.

    Args:
        frozen: As of `teacher_logits`.
        table: The training table.
        config: Of the job: where files are, and examples of a call.
        run_dir: Has the files until the run is done where `data.cache_dir` is not given.
        workers: Those of the job.
        output: As of `teacher_logits`.
    """
    base = Path(config.data.cache_dir) if config.data.cache_dir else run_dir / "cache"
    folder, rows = base / os.uname().nodename / frozen.role, config.train.eval_batch_size
    first = workers.local_rank == 0
    found = cached_logits(frozen, table, rows, folder, writes=True, output=output) if first else None
    workers.barrier()
    return cached_logits(frozen, table, rows, folder, writes=False, output=output) if found is None else found


def cached_logits(
    frozen: Frozen, table: EncodedTable, batch_size: int, folder: Path, *, writes: bool, output: str = "logits"
) -> np.ndarray:
    """Returns the same, in a file, which is there already where the same network saw the same examples before.

    The name of the file is the SHA-256 of the network and of all arrays of the table, so that another teacher, another
    table or other settings of its encoding never find it.

    Args:
        frozen: As of `teacher_logits`.
        table: As there.
        batch_size: As there.
        folder: Where the files are.
        writes: Whether this process asks the network and writes the file where there is none; else it is there.
        output: As there.
    """
    path = folder / f"{content_key(frozen.record['sha256'], table)}.npy"
    if writes and not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:

            def on_disk(shape: tuple[int, ...]) -> np.ndarray:
                return np.lib.format.open_memmap(temporary, "w+", np.float32, shape)

            teacher_logits(frozen, table, batch_size, on_disk, output)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def content_key(network: str, table: EncodedTable) -> str:
    """Returns the SHA-256 of what decides the logits: the network's own, and names and values of all columns."""
    digest = hashlib.sha256(network.encode())
    for name, column in sorted(table.columns.items()):
        parts = (column.offsets, column.values) if isinstance(column, Ragged) else (column,)
        for part in parts:
            digest.update(f"{name} {np.dtype(part.dtype).str} {list(part.shape)};".encode())
            for start in range(0, len(part), _BLOCK):
                digest.update(np.ascontiguousarray(part[start : start + _BLOCK]).data)
    return digest.hexdigest()
