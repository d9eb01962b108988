"""Which rows are computed together: parameters, the parts of a request, and the choice among those that wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import ConfigError
from easytransfer.savedmodel.calling import Arrays
from easytransfer.serving.sources import parse_server_file

# In bytes of text: what a row costs besides its text (special tokens), and what a batch costs besides its rows.
ROW_COST, BATCH_COST = 9, 64
# An image, or a row of an array, counts like a text of so many bytes.
ARRAY_BYTES = BATCH_COST - ROW_COST
# Rows that cost so many times the fixed part of a batch gain nothing from further rows, on a core of a processor, and
# each further row lets the others wait.
LARGE_BATCH = 8


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined; names and meaning are those of `batching.config`.

    Args:
        max_batch_size: Most rows computed together, and most rows of one request.
        batch_timeout_micros: Longest wait for companions while another batch is being computed.
        max_enqueued_batches: Batches of the largest size that may wait, for each signature.
        num_batch_threads: Batches computed at once.
        allowed_batch_sizes: Sizes a batch is filled up to, by repeating rows; empty for any size.
    """

    max_batch_size: int = 64
    batch_timeout_micros: int = 2000
    max_enqueued_batches: int = 100
    num_batch_threads: int = 4
    allowed_batch_sizes: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> BatchingParameters:
        """Reads `batching.config`.

        Raises:
            ConfigError: It does not parse, or contradicts itself.
        """
        message = parse_server_file(path, "batching.config")
        fields = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
        given = {name: getattr(message, name).value for name in fields if message.HasField(name)}
        found = cls(**given, allowed_batch_sizes=tuple(message.allowed_batch_sizes))
        sizes = found.allowed_batch_sizes
        if min(found.max_batch_size, found.max_enqueued_batches, found.num_batch_threads) < 1:
            raise ConfigError(f"{path}: sizes and numbers must be at least 1", received=given)
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != found.max_batch_size):
            raise ConfigError(
                f"{path}: allowed_batch_sizes must ascend to max_batch_size {found.max_batch_size}", received=sizes
            )
        return found


@dataclass(eq=False)
class Job:
    """One request that waits.

    Attributes:
        inputs: Its checked arrays.
        rows: Its rows.
        length: Bytes of its longest row of text.
        key: What inputs must have in common to be joined.
        deadline: Value of `time.monotonic` after which nobody waits any more.
        arrived: When it came.
        future: Takes the answer.
    """

    inputs: Arrays
    rows: int
    length: int
    key: tuple[Any, ...]
    deadline: float
    arrived: float = field(default_factory=time.monotonic)
    future: Future = field(default_factory=Future)

    def alive(self, now: float) -> bool:
        """Says whether somebody still waits for the answer."""
        return not self.future.cancelled() and now < self.deadline


def parts(lengths: Sequence[int], sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Returns the rows of a request by the batches they are best computed in: of similar length, and not too large.

    Args:
        lengths: Bytes of each row.
        sizes: Allowed sizes of a batch; none for any.
    """
    order, found, start = np.argsort(lengths, kind="stable"), [], 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * (lengths[order[end]] + ROW_COST) <= LARGE_BATCH * BATCH_COST:
            end += 1
        # Only the last part may be filled up with copies: the others end at an allowed size, and leave the rest behind.
        if end < len(order):
            end = start + max((size for size in sizes if size <= end - start), default=end - start)
        found.append(order[start:end])
        start = end
    return found


def join(head: Job, waiting: list[Job], parameters: BatchingParameters) -> list[Job]:
    """Returns `head` with those of `waiting` that make the best use of a batch.

    Beginning with the oldest request, the next shorter or the next longer one joins, whichever leaves more of the
    batch's cost to text, as long as that share grows and the batch is not large already.
    """
    ordered = sorted(waiting, key=lambda job: job.length)
    low = high = ordered.index(head)
    rows, text, longest = head.rows, head.rows * (head.length + ROW_COST), head.length + ROW_COST
    # What of the time of a batch is spent on text: every row costs as much as the longest one.
    share = text / (BATCH_COST + rows * longest)
    while rows * longest < LARGE_BATCH * BATCH_COST:
        # Sorted by length, so that the neighbours are the two candidates that pad least.
        best = None
        for place in (low - 1, high + 1):
            if not 0 <= place < len(ordered) or rows + ordered[place].rows > parameters.max_batch_size:
                continue
            job = ordered[place]
            cost = job.length + ROW_COST
            found = (text + job.rows * cost) / (BATCH_COST + (rows + job.rows) * max(longest, cost))
            if found > share:
                best, share = (place, found), found
        if best is None:
            break
        place = best[0]
        low, high = min(low, place), max(high, place)
        rows, longest = rows + ordered[place].rows, max(longest, ordered[place].length + ROW_COST)
        text += ordered[place].rows * (ordered[place].length + ROW_COST)
    return _trimmed(head, ordered[low : high + 1], parameters.allowed_batch_sizes)


def _trimmed(head: Job, chosen: list[Job], sizes: tuple[int, ...]) -> list[Job]:
    """Leaves the longest requests for the next batch where this one would be filled up with copies otherwise."""
    while sizes and len(chosen) > 1 and sum(job.rows for job in chosen) not in sizes:
        chosen.pop(-1 if chosen[-1] is not head else 0)
    return chosen
