"""Requests that wait are computed together: a bounded queue for each signature, and one pool of threads for all.

TensorFlow Serving's parameters with two differences. Nobody waits for companions while the processor is idle. And of
the requests that wait, those of similar length are joined: a graph on text pads every row to the longest one, and on
processors padding costs as much as text. For the same reason a request of many rows is computed in parts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from easytransfer.savedmodel.array_json import take_rows
from easytransfer.savedmodel.calling import Arrays
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.joining import ARRAY_BYTES, BatchingParameters, Job, join, parts
from easytransfer.serving.servable import LoadedSignature, Servable

# Requests looked at when a batch is put together, oldest first.
CANDIDATES = 256


def thread_count(parameters: BatchingParameters) -> int:
    """Returns how many batches are computed at once: more than there are cores would take time from each other."""
    return min(parameters.num_batch_threads, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Computed:
    """The answer to one request, and how it came about."""

    outputs: Arrays
    queue_seconds: float
    batch_rows: int


class _Lane:
    """The requests that wait for one signature of one version."""

    def __init__(self, servable: Servable, signature: LoadedSignature) -> None:
        self.servable, self.signature = servable, signature
        self.jobs: list[Job] = []
        self.rows = 0

    def drop_dead(self, now: float) -> None:
        """Removes what nobody waits for any more."""
        dead = [job for job in self.jobs if not job.alive(now)]
        if dead:
            self.jobs = [job for job in self.jobs if job.alive(now)]
            self.rows = sum(job.rows for job in self.jobs)
        for job in dead:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ServingFailure("DEADLINE_EXCEEDED", "the request waited too long"))

    def take(self, parameters: BatchingParameters) -> list[Job]:
        """Removes and returns the oldest request with those that go well with it."""
        head = self.jobs[0]
        if not self.signature.waits:
            chosen = [head]
        else:
            same = [job for job in self.jobs[:CANDIDATES] if job.key == head.key]
            chosen = join(head, same, parameters) if len(same) > 1 else same
        taken = set(map(id, chosen))
        self.jobs = [job for job in self.jobs if id(job) not in taken]
        self.rows -= sum(job.rows for job in chosen)
        return chosen


class Batcher:
    """Computes requests on a pool of threads.

    Args:
        parameters: How requests are joined.
        observe: Called after each batch with its servable, rows, rows with filling, and seconds.
    """

    def __init__(
        self, parameters: BatchingParameters, observe: Callable[[Servable, int, int, float], None] = lambda *_: None
    ) -> None:
        self.parameters, self._observe = parameters, observe
        self._lanes: dict[tuple[Servable, str], _Lane] = {}
        self._changed = threading.Condition()
        self._busy, self._closed = 0, False
        # Daemons: a batch that never ends must not keep the process from ending.
        count = thread_count(parameters)
        self._threads = [threading.Thread(target=self._work, name=f"compute-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait, over all signatures."""
        with self._changed:
            return sum(lane.rows for lane in self._lanes.values())

    def submit(
        self, servable: Servable, signature: LoadedSignature, inputs: Arrays, rows: int, deadline: float
    ) -> Future:
        """Queues one request; the result is `Computed`. A request whose future is cancelled in time is not computed.

        Args:
            servable: The version to ask.
            signature: One of its signatures.
            inputs: Checked arrays.
            rows: Their rows.
            deadline: Value of `time.monotonic` after which nobody waits any more.

        Raises:
            ServingFailure: The request is too large or the queue is full.
        """
        parameters = self.parameters
        if rows > parameters.max_batch_size:
            raise ServingFailure(
                "INVALID_ARGUMENT",
                f"a request may have {parameters.max_batch_size} rows, not {rows}; send several requests",
            )
        # Rows of one shape and type can be laid end to end; the rest of the request does not matter.
        key = tuple((name, str(value.dtype), value.shape[1:]) for name, value in sorted(inputs.items()))
        lengths = _lengths(signature, inputs, rows)
        sizes = parameters.allowed_batch_sizes if signature.waits else ()
        divided = parts(lengths, sizes) if signature.divides and rows > 1 else []
        if len(divided) > 1:
            jobs = [
                Job({name: value[part] for name, value in inputs.items()}, len(part), lengths[part[-1]], key, deadline)
                for part in divided
            ]
            future = _combined(jobs, np.argsort(np.concatenate(divided)))
        else:
            jobs = [Job(inputs, rows, max(lengths, default=0), key, deadline)]
            future = jobs[0].future
        limit = parameters.max_batch_size * parameters.max_enqueued_batches
        with self._changed:
            # By version, not by name: requests of the old and the new version wait apart, and the old one can be
            # unloaded.
            lane = self._lanes.get((servable, signature.name))
            if lane is not None and lane.rows + rows > limit:
                # What nobody waits for any more must not turn away what somebody does.
                lane.drop_dead(time.monotonic())
                if lane.rows + rows > limit:
                    raise ServingFailure(
                        "RESOURCE_EXHAUSTED", f"the queue of {servable.name} is full: {lane.rows} rows wait; try later"
                    )
            if lane is None:
                lane = self._lanes[servable, signature.name] = _Lane(servable, signature)
            lane.jobs.extend(jobs)
            lane.rows += rows
            self._changed.notify(len(jobs))
        return future

    def close(self, seconds: float = 5.0) -> None:
        """Ends the threads once the queues are empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(seconds)

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Computes one batch; a function of its own, so that a thread that waits holds no version in its variables."""
        found = self._next()
        if found is None:
            return False
        lane, jobs = found
        # From here on a request can no longer be cancelled; what was cancelled while it waited is left out.
        running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        try:
            if running:
                self._compute(lane, running)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()
        return True

    def _next(self) -> tuple[_Lane, list[Job]] | None:
        """Waits for a batch whose time has come; None after `close` when nothing waits any more."""
        with self._changed:
            while True:
                now = time.monotonic()
                self._drop_idle(now)
                lane, pause = self._choose(now)
                if lane is not None:
                    self._busy += 1
                    return lane, lane.take(self.parameters)
                if self._closed and not self._lanes:
                    return None
                # The lock is open while it waits; `submit` and the end of a batch wake it.
                self._changed.wait(pause)

    def _drop_idle(self, now: float) -> None:
        for name, lane in list(self._lanes.items()):
            lane.drop_dead(now)
            if not lane.jobs:
                del self._lanes[name]

    def _choose(self, now: float) -> tuple[_Lane | None, float | None]:
        """Returns the lane whose turn it is, or else how long there is nothing to do."""
        pause = None
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.jobs[0].arrived):
            rest = self._rest(lane, now)
            if rest <= 0:
                return lane, None
            pause = rest if pause is None else min(pause, rest)
        return None, pause

    def _rest(self, lane: _Lane, now: float) -> float:
        """Returns how long the oldest request of a lane should still wait for companions."""
        # Waiting gains nothing while a core is idle, the server ends, the signature takes requests one by one, or a
        # full batch is there already.
        if not self._busy or self._closed or not lane.signature.waits or lane.rows >= self.parameters.max_batch_size:
            return 0.0
        return lane.jobs[0].arrived + self.parameters.batch_timeout_micros / 1e6 - now

    def _compute(self, lane: _Lane, jobs: list[Job]) -> None:
        begin = time.monotonic()
        rows = sum(job.rows for job in jobs)
        inputs = jobs[0].inputs
        if len(jobs) > 1:
            inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in inputs}
        # Filled up to an allowed size: compiled graphs have these shapes only.
        size = next((size for size in self.parameters.allowed_batch_sizes if size >= rows), rows)
        if not lane.signature.waits or not rows:
            size = rows
        try:
            outputs = lane.signature.call(inputs if size == rows else take_rows(inputs, size))
            if len(jobs) > 1 or size != rows:
                parts = _split(outputs, jobs, size)
            else:
                parts = [outputs]
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:
                # One request must not spoil the others.
                for job in jobs:
                    self._compute(lane, [job])
            return
        self._observe(lane.servable, rows, size, time.monotonic() - begin)
        for job, part in zip(jobs, parts, strict=True):
            job.future.set_result(Computed(part, begin - job.arrived, rows))


def _split(outputs: Arrays, jobs: list[Job], size: int) -> list[Arrays]:
    if any(len(value) != size for value in outputs.values()):
        raise ServingFailure("INTERNAL", "the model gave another number of rows than it was asked for")
    # Rows beyond the last end are those the batch was filled up with.
    ends = np.cumsum([job.rows for job in jobs])
    return [
        {name: value[end - job.rows : end] for name, value in outputs.items()}
        for job, end in zip(jobs, ends, strict=True)
    ]


def _combined(jobs: list[Job], order: np.ndarray) -> Future:
    """Returns the future of a request that is computed in parts; to cancel it cancels what was not begun.

    Args:
        jobs: The parts.
        order: Where each row of the request is in the parts laid end to end.
    """
    whole: Future = Future()
    # The part that finds none left is the last one to end, and puts the answer together.
    left = threading.Semaphore(len(jobs) - 1)

    def ended(_: Future) -> None:
        if left.acquire(blocking=False) or not whole.set_running_or_notify_cancel():
            return
        try:
            found = [job.future.result() for job in jobs]
            outputs = {name: np.concatenate([part.outputs[name] for part in found])[order] for name in found[0].outputs}
            whole.set_result(
                Computed(outputs, max(part.queue_seconds for part in found), max(part.batch_rows for part in found))
            )
        except Exception as error:
            whole.set_exception(error)

    def cancelled(_: Future) -> None:
        if whole.cancelled():
            for job in jobs:
                job.future.cancel()

    for job in jobs:
        job.future.add_done_callback(ended)
    whole.add_done_callback(cancelled)
    return whole


def _lengths(signature: LoadedSignature, inputs: Arrays, rows: int) -> list[int]:
    """Returns what every row counts for, in bytes of text."""
    if not signature.texts:
        large = any(name.endswith("_bytes") or value.ndim > 1 for name, value in inputs.items())
        return [ARRAY_BYTES if large else 0] * rows
    columns = [inputs[name] for name in signature.texts]
    return [sum(map(len, row)) for row in zip(*columns, strict=True)]
