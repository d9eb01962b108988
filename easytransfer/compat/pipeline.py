"""Stages that run at the same time, joined by bounded queues: read, encode, predict, write.

    executor = ProcessExecutor(queue_size=4)
    executor.add(CSVReader(..., output_queue=executor.get_output_queue()))
    executor.add(MyStage("mine", 4, executor.get_input_queue(), executor.get_output_queue()))
    executor.add(CSVWriter(..., input_queue=executor.get_input_queue()))
    executor.run()
    executor.wait()

Unlike the original's, the queues keep the order of items however many threads a stage has, and the first error of any
stage stops all of them and is raised by `wait`.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class _Stopped(Exception):
    """Another stage failed."""


class OrderedQueue:
    """A bounded queue whose items leave in the order of their numbers, whichever thread brings them.

    Args:
        maxsize: Items waiting in it, at most.
    """

    def __init__(self, maxsize: int) -> None:
        self._items: deque[Any] = deque()
        self._maxsize = max(maxsize, 1)
        self._changed = threading.Condition()
        self._next_in = self._next_out = 0
        self._ended = self._stopped = False

    def put(self, number: int, items: list[Any]) -> None:
        """Adds what was made of input `number`, nothing or several items, once all before it were added."""
        with self._changed:
            self._wait(lambda: self._next_in == number and len(self._items) < self._maxsize)
            self._items.extend(items)
            self._next_in += 1
            self._changed.notify_all()

    def get(self, count: int) -> tuple[int, list[Any]]:
        """Returns a number of its own and the next `count` items: fewer at the end, none behind it."""
        with self._changed:
            # A queue shorter than what is asked of it at once would never hold enough.
            self._maxsize = max(self._maxsize, count)
            self._changed.notify_all()
            self._wait(lambda: len(self._items) >= count or self._ended)
            taken = [self._items.popleft() for _ in range(min(count, len(self._items)))]
            number = self._next_out
            self._next_out += bool(taken)
            self._changed.notify_all()
            return number, taken

    def end(self) -> None:
        """Says that no item will follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends all waiting with an error."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _wait(self, ready: Any) -> None:
        self._changed.wait_for(lambda: self._stopped or ready())
        if self._stopped:
            raise _Stopped


class Process:
    """One stage; a subclass defines `process`.

    A stage without input is a source: `process(None)` returns item after item, and raises `StopIteration` when there
    are no more. (The original ended on `IndexError`, so an index out of range in a source went unnoticed.)

    Args:
        job_name: Name for messages.
        thread_num: Threads that call `process`; a source has one.
        input_queue: From `ProcessExecutor.get_input_queue`; None for a source.
        output_queue: From `ProcessExecutor.get_output_queue`; None for the last stage.
        batch_size: 1 calls `process` with one item, more with a list of up to so many.
    """

    def __init__(
        self,
        job_name: str,
        thread_num: int = 1,
        input_queue: OrderedQueue | None = None,
        output_queue: OrderedQueue | None = None,
        batch_size: int = 1,
    ) -> None:
        self.job_name = job_name
        self.thread_num = thread_num if input_queue is not None else 1
        self.input_queue, self.output_queue = input_queue, output_queue
        self.items_at_once = batch_size
        self._threads: list[threading.Thread] = []

    def process(self, in_data: Any) -> Any:
        """Returns what to hand to the next stage for one item, or for a list of them; None hands on nothing."""
        raise NotImplementedError(f"{type(self).__name__} must define process(in_data)")

    def destroy(self) -> None:
        """Called once all items went through."""

    def abort(self) -> None:
        """Called instead of `destroy` when a stage failed."""

    def _work(self, failures: list[BaseException], left: list[int], stop: Any) -> None:
        try:
            self._source() if self.input_queue is None else self._stage()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`, whatever it is
            failures.append(error)
            stop()
        finally:
            left.pop()
            if not left and self.output_queue is not None:
                self.output_queue.end()

    def _source(self) -> None:
        number = 0
        while True:
            try:
                item = self.process(None)
            except StopIteration:
                return
            if item is not None and self.output_queue is not None:
                self.output_queue.put(number, [item])
                number += 1

    def _stage(self) -> None:
        while True:
            number, items = self.input_queue.get(self.items_at_once)
            if not items:
                return
            result = self.process(items[0] if self.items_at_once == 1 else items)
            if self.output_queue is not None:
                self.output_queue.put(number, [] if result is None else [result])


class ProcessExecutor:
    """Runs stages that were added in order.

    Args:
        queue_size: Items waiting between two stages, at most.
    """

    def __init__(self, queue_size: int) -> None:
        self._queue_size = queue_size
        self._stages: list[Process] = []
        self._failures: list[BaseException] = []

    def get_output_queue(self) -> OrderedQueue:
        """Returns a new queue behind the stage that is being made."""
        return OrderedQueue(self._queue_size)

    def get_input_queue(self) -> OrderedQueue:
        """Returns the queue behind the stage added last.

        Raises:
            ValueError: There is no stage, or the last one has no output queue.
        """
        if not self._stages or self._stages[-1].output_queue is None:
            raise ValueError("add a stage with an output queue first")
        return self._stages[-1].output_queue

    def add(self, stage: Process) -> None:
        """Adds a stage behind the others."""
        self._stages.append(stage)

    def run(self) -> None:
        """Starts all stages."""
        for stage in self._stages:
            left = [1] * stage.thread_num
            stage._threads = [
                threading.Thread(target=stage._work, args=(self._failures, left, self._stop), name=stage.job_name)
                for _ in range(stage.thread_num)
            ]
        for thread in (thread for stage in self._stages for thread in stage._threads):
            thread.daemon = True
            thread.start()

    def wait(self) -> None:
        """Waits for the end and calls `destroy` of every stage.

        Raises:
            BaseException: The first error of any stage, after `abort` of every stage.
        """
        for thread in (thread for stage in self._stages for thread in stage._threads):
            thread.join()
        for stage in self._stages:
            stage.abort() if self._failures else stage.destroy()
        if self._failures:
            raise self._failures[0]

    def _stop(self) -> None:
        for stage in self._stages:
            if stage.output_queue is not None:
                stage.output_queue.stop()
