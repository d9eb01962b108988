"""Batches of an encoded table: one plan per epoch, the same on every worker, each row exactly once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Protocol, TypeVar

import numpy as np

from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import DataError

# Rows are sorted by length inside a window of this many global batches: enough for little padding, few enough
# that a batch is still a near-random draw.
WINDOW_BATCHES = 50

_Item = TypeVar("_Item")


class Sampler(Protocol):
    """Decides which rows make a batch where a shuffled table will not do: so many of each identity, two streams.

    What it returns is a function of its own seed and the arguments alone, the same in every process.
    """

    def steps(self, size: int, workers: int) -> int:
        """Returns the number of batches of an epoch, the same for all epochs.

        Args:
            size: Rows of a batch of all workers.
            workers: How many share it.
        """

    def plan(self, epoch: int, size: int, workers: int) -> list[np.ndarray]:
        """Returns the rows of the batches of an epoch, in order, each int [at most `size`].

        Worker r takes the places r, r + workers, ... of each. Rows may come more than once, or not at all.
        """


class Batches:
    """Epochs of padded batches, a pure function of (table, seed, epoch).

    All workers compute the same plan of global batches, `batch_size * workers` rows each. When training, worker r takes
    rows r, r + workers, ... of each, which spreads the lengths evenly; else it takes rows that follow each other, so
    that examples of one row of the table meet in one evaluator. The rows that do not fill a global batch are drawn
    like any others and form the epoch's last, smaller batch. Slices of one global batch have equal shapes: a short
    slice is filled with rows of weight 0.

    Args:
        table: The whole table, the same on every worker.
        batch_size: Rows per step of one worker.
        shuffle: New order in each epoch. Without it the order is fixed and sorted by length inside windows;
            `rows` tells which row went where.
        seed: Seed of the orders.
        shard: This worker's rank and the number of workers.
        pad_multiple: Widths are rounded up to a multiple of this.
        global_batch: Rows per step of all workers, in place of `batch_size * workers`: the plan of a job whose number
            of workers changes.
        sampler: Makes the plan in place of the rule above; `shuffle` and `seed` are then not used.

    Raises:
        DataError: The table is empty.
        ValueError: `batch_size` or `shard` is out of range.
    """

    def __init__(
        self,
        table: EncodedTable,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        pad_multiple: int = 8,
        global_batch: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        if not len(table):
            raise DataError("the table has no usable row", fix="check the table and its bad-row report")
        rank, workers = shard
        if batch_size < 1 or not 0 <= rank < workers:
            raise ValueError(f"batch_size {batch_size} and shard {shard} are out of range")
        self.table = table
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.shard = shard
        self.pad_multiple = pad_multiple
        self.global_batch = global_batch or batch_size * workers
        self.sampler = sampler
        self._lengths = table.lengths if shuffle else table.row_lengths

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the same on every worker."""
        if self.sampler is not None:
            return self.sampler.steps(self.global_batch, self.shard[1])
        return -(-len(self.table) // self.global_batch)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """Returns the rows of every global batch of `epoch`, in training order."""
        if self.sampler is not None:
            return self.sampler.plan(epoch, self.global_batch, self.shard[1])
        total, size = len(self.table), self.global_batch
        random = np.random.Generator(np.random.PCG64([self.seed % 2**63, epoch]))
        order = random.permutation(total) if self.shuffle else np.arange(total)
        full = total - total % size
        window = WINDOW_BATCHES * size
        batches: list[np.ndarray] = []
        for start in range(0, full, window):
            rows = order[start : min(start + window, full)]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches.extend(rows.reshape(-1, size))
        if self.shuffle:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return batches if full == total else [*batches, order[full:]]

    def rows(self, epoch: int = 0) -> list[np.ndarray]:
        """Returns the rows of this worker's batches, without the rows that only fill them."""
        return [self._share(rows) for rows in self.plan(epoch)]

    def _share(self, rows: np.ndarray) -> np.ndarray:
        rank, workers = self.shard
        return rows[rank::workers] if self.shuffle else np.array_split(rows, workers)[rank]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of `epoch`, leaving out the first `start`; the others are the same as without."""
        workers = self.shard[1]
        for rows in self.plan(epoch)[start:]:
            yield self.table.batch(
                self._share(rows),
                pad_multiple=self.pad_multiple,
                size=-(-len(rows) // workers),
                width_of=rows if workers > 1 else None,
            )


def prefetch(iterator: Iterator[_Item], depth: int = 4) -> Iterator[_Item]:
    """Runs `iterator` in a background thread, up to `depth` items ahead.

    An exception of the iterator is raised here, after the items before it. Closing this generator, or dropping it,
    stops the thread and closes the iterator.
    """
    items: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=max(depth, 1))
    stopped = threading.Event()

    def put(item: tuple[str, object]) -> bool:
        while not stopped.is_set():
            try:
                items.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in iterator:
                if not put(("item", item)):
                    break
            else:
                put(("end", None))
        except BaseException as error:  # noqa: BLE001 - handed over to the consumer, whatever it is
            put(("error", error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = items.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
