"""A pool of LiteRT interpreters, each with one thread, that share the rows of a batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import ModelError, ResourceError
from easytransfer.installing import install_line

Row = Mapping[str, np.ndarray]


def require_litert() -> None:
    """Checks that the package of the extra `litert` is there.

    Raises:
        ResourceError: It is not.
    """
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        raise ResourceError("LiteRT exports need ai-edge-litert", fix=install_line("litert")) from error


class Interpreters:
    """Calls a model on one row at a time, as many rows at once as there are interpreters.

    A row has no padding and no companions, so that its answer depends on nothing but the row.

    Args:
        path: The model, a `.tflite` file with one signature.
        count: Interpreters; None = one for each core.

    Attributes:
        inputs: Names of the inputs.

    Raises:
        ModelError: The file is damaged.
        ResourceError: LiteRT is not installed.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self._path = path
        self._count = count or len(os.sched_getaffinity(0))
        # The first one is made at once, which tells whether the file is usable, the others when they are needed.
        first = self._new()
        self.inputs = list(first.get_input_details())
        self._idle, self._made = [first], 1
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, rows: Sequence[Row]) -> list[dict[str, np.ndarray]]:
        """Returns the outputs of every row; rows of like length next to each other are fastest.

        Args:
            rows: Arrays by input name; the first axis is 1.

        Raises:
            ModelError: An input does not fit.
        """
        answers: list[Any] = [None] * len(rows)
        waiting = iter(range(len(rows)))
        count = min(self._count, len(rows))
        if count < 2:
            self._work(rows, waiting, answers)
            return answers
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="litert")
        for job in [self._threads.submit(self._work, rows, waiting, answers) for _ in range(count)]:
            job.result()
        return answers

    def close(self) -> None:
        """Ends the threads."""
        if self._threads is not None:
            self._threads.shutdown()

    def delegates(self) -> int:
        """Returns in how many pieces XNNPACK computes the model; more than one means that others stand between."""
        return sum(operator["op_name"] == "DELEGATE" for operator in self._idle[0]._interpreter._get_ops_details())

    def _work(self, rows: Sequence[Row], waiting: Iterator[int], answers: list[Any]) -> None:
        """Computes rows until none waits."""
        with self._lock:
            runner = self._idle.pop() if self._idle else None
        runner = runner or self._new()
        try:
            for row in waiting:
                answers[row] = runner(**rows[row])
        except (RuntimeError, ValueError) as error:
            raise ModelError("the LiteRT model refuses a row", received=str(error).split("\n")[0]) from error
        finally:
            with self._lock:
                self._idle.append(runner)

    def _new(self) -> Any:
        require_litert()
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=str(self._path), num_threads=1)
            (name,) = interpreter.get_signature_list()
            return interpreter.get_signature_runner(name)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self._path} is no usable LiteRT model", received=str(error).split("\n")[0]) from error
