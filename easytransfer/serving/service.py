"""What both protocols do with a request: find the version, check, queue, wait, count, log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from easytransfer.run.log import json_line, warn, write_line
from easytransfer.savedmodel.calling import Arrays
from easytransfer.savedmodel.signature import EXAMPLES
from easytransfer.serving.batching import Batcher
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.metrics import Metrics
from easytransfer.serving.repository import Repository, Target
from easytransfer.serving.servable import LoadedSignature

# Makes the serialized `tf.Example` messages of a request, once it is known that its signature takes them.
Examples = Callable[[], Sequence[bytes]]
# Model name of requests for models that are not there, so that clients cannot make names in logs and metrics.
UNKNOWN_MODEL = "unknown"


@dataclass
class Record:
    """What is known about a request while it is answered; becomes its line in the log."""

    api: str
    entry: str
    target: Target | None = None
    version: int | None = None
    signature: str = ""
    rows: int = 0
    batch_rows: int = 0
    queue_seconds: float = 0.0
    status: str = "OK"


@dataclass(frozen=True)
class Answer:
    """The outputs of a signature, and which version gave them."""

    name: str
    version: int
    signature: LoadedSignature
    outputs: Arrays


class Service:
    """The calls of TensorFlow Serving on arrays, for one event loop.

    Args:
        repository: The models.
        batcher: Computes.
        metrics: Counts.
        request_seconds: Longest time of a request.
        access_log: Whether to write a line for each request.
    """

    def __init__(
        self, repository: Repository, batcher: Batcher, metrics: Metrics, *, request_seconds: float, access_log: bool
    ) -> None:
        self.repository = repository
        self._batcher, self._metrics = batcher, metrics
        self._request_seconds, self._access_log = request_seconds, access_log
        self.answered = 0

    async def predict(
        self,
        record: Record,
        target: Target,
        signature_name: str,
        inputs_of: Callable[[LoadedSignature], Arrays],
        seconds: float | None = None,
        large: bool = False,
    ) -> Answer:
        """Returns what a signature gives.

        Args:
            record: Filled in for the log.
            target: Which version of which model.
            signature_name: Which signature; empty for the default one.
            inputs_of: Makes the arrays of the request, given the signature they are for.
            seconds: The client's own time limit.
            large: Whether `inputs_of` has so much to do that other requests should not wait for it.

        Raises:
            ServingFailure: The request cannot be answered.
        """
        limit = min(self._request_seconds, seconds if seconds is not None else self._request_seconds)
        deadline = time.monotonic() + limit
        record.target = target
        with self.repository.lease(target) as servable:
            signature = servable.signature(signature_name)
            record.version, record.signature = servable.version, signature.name
            inputs = await asyncio.to_thread(inputs_of, signature) if large else inputs_of(signature)
            record.rows = signature.check(inputs)
            future = self._batcher.submit(servable, signature, inputs, record.rows, deadline)
            try:
                computed = await asyncio.wait_for(asyncio.wrap_future(future), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise ServingFailure("DEADLINE_EXCEEDED", f"no answer within {limit:.3g} s") from None
            record.queue_seconds, record.batch_rows = computed.queue_seconds, computed.batch_rows
            return Answer(servable.name, servable.version, signature, computed.outputs)

    async def classify(
        self, record: Record, target: Target, signature_name: str, examples_of: Examples, seconds: float | None
    ) -> tuple[Answer, list[list[tuple[str, float]]]]:
        """Returns, for each serialized `tf.Example`, labels with their scores; the same arguments as `predict`."""
        answer = await self._on_examples(record, target, signature_name, examples_of, seconds, ("classes", "scores"))
        classes, scores = answer.outputs.get("classes"), answer.outputs.get("scores")
        shape = (classes if classes is not None else scores).shape
        if len(shape) != 2:
            raise _misfit(answer.signature, "classes and scores must have two axes")
        labels = np.full(shape, b"", object) if classes is None else classes
        values = np.zeros(shape, np.float32) if scores is None else scores
        rows = zip(labels.tolist(), values.tolist(), strict=True)
        return answer, [
            [(label.decode("utf-8", errors="replace"), score) for label, score in zip(*row, strict=True)]
            for row in rows
        ]

    async def regress(
        self, record: Record, target: Target, signature_name: str, examples_of: Examples, seconds: float | None
    ) -> tuple[Answer, list[float]]:
        """Returns a number for each serialized `tf.Example`; the same arguments as `predict`."""
        answer = await self._on_examples(record, target, signature_name, examples_of, seconds, ("outputs",))
        values = answer.outputs["outputs"]
        if values.size != record.rows:
            raise _misfit(answer.signature, "there must be one number for each example")
        return answer, values.ravel().tolist()

    @contextlib.contextmanager
    def observed(self, api: str, entry: str) -> Iterator[Record]:
        """Counts and logs the request that the block answers; what it does not expect becomes INTERNAL.

        Args:
            api: `predict` and so on.
            entry: `REST` or `GRPC`.
        """
        record, begin = Record(api, entry), time.monotonic()
        try:
            yield record
        except ServingFailure as failure:
            record.status = failure.code
            raise
        except asyncio.CancelledError:
            record.status = "CANCELLED"
            raise
        except Exception as error:
            record.status = "INTERNAL"
            # Not its text, which may repeat the request.
            warn(f"{api} failed with {type(error).__name__}")
            raise ServingFailure("INTERNAL", "the server failed to answer this request") from error
        finally:
            self._note(record, time.monotonic() - begin)

    def _note(self, record: Record, seconds: float) -> None:
        self.answered += 1
        model = UNKNOWN_MODEL
        if record.target is not None and record.target.name in self.repository:
            model = record.target.name
        self._metrics.request(model, record.api, record.entry, record.status, seconds)
        if not self._access_log:
            return
        fields = {
            "api": record.api,
            "entry": record.entry,
            "model": model,
            "version": record.version,
            "signature": record.signature if record.version is not None else "",
            "status": record.status,
            "rows": record.rows,
            "batch_rows": record.batch_rows,
            "ms": round(seconds * 1e3, 3),
            "queue_ms": round(record.queue_seconds * 1e3, 3),
        }
        write_line(json_line("request", fields))

    async def _on_examples(
        self,
        record: Record,
        target: Target,
        signature_name: str,
        examples_of: Examples,
        seconds: float | None,
        needed: tuple[str, ...],
    ) -> Answer:
        """Calls a signature that takes serialized examples and gives at least one of the outputs in `needed`."""

        def inputs_of(signature: LoadedSignature) -> Arrays:
            if set(signature.inputs) != {EXAMPLES} or not set(needed) & set(signature.outputs):
                raise ServingFailure(
                    "INVALID_ARGUMENT",
                    f"signature {signature.name} is not for {record.api}, which needs the input {EXAMPLES} and the "
                    f"output {' or '.join(needed)}; name one in signature_name",
                )
            examples = examples_of()
            if not examples:
                raise ServingFailure("INVALID_ARGUMENT", "Input is empty")
            return {EXAMPLES: np.array([*examples, None], object)[:-1]}

        return await self.predict(record, target, signature_name, inputs_of, seconds)


def _misfit(signature: LoadedSignature, why: str) -> ServingFailure:
    return ServingFailure("INVALID_ARGUMENT", f"signature {signature.name}: {why}")
