"""Micro-batching on functions in place of models: who is joined, who waits, who is refused."""

import os
import threading
import time
from concurrent.futures import CancelledError, wait
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easytransfer.errors import ConfigError
from easytransfer.serving.batching import Batcher
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.joining import BATCH_COST, LARGE_BATCH, ROW_COST, BatchingParameters, Job, join, parts
from easytransfer.serving.servable import LoadedSignature, TensorFacts

ROWS = TensorFacts("float32", (None,))


class Doubling:
    """A signature that doubles its input, keeps what it was asked, and waits for `gate` if it is closed."""

    def __init__(self, dtype="float32", shape=(None,), output=(None,)) -> None:
        self.calls: list[np.ndarray] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        facts = {"x": TensorFacts(dtype, shape)}
        self.signature = LoadedSignature("double", facts, {"y": TensorFacts("float32", output)}, self.call)
        self.name = "toy"

    def call(self, inputs):
        self.calls.append(inputs["x"])
        self.entered.release()
        assert self.gate.wait(10)
        if inputs["x"].dtype != object and (inputs["x"] < 0).any():
            raise ValueError("negative")
        if inputs["x"].dtype == object:
            return {"y": np.array([len(cell) for cell in inputs["x"]], np.float32)}
        return {"y": 2 * inputs["x"]}

    def block(self, batcher: Batcher) -> None:
        """Makes every thread compute something until the gate opens."""
        self.gate.clear()
        for _ in batcher._threads:
            ask(batcher, self, b"" if self.signature.texts else 0.0)
            assert self.entered.acquire(timeout=10)
        self.calls.clear()


def ask(batcher: Batcher, model: Doubling, *values, seconds: float = 10.0):
    array = np.array(values, object if values and isinstance(values[0], bytes) else np.float32)
    return batcher.submit(model, model.signature, {"x": array}, len(array), time.monotonic() + seconds)


@pytest.fixture
def make():
    made = []

    def build(**parameters) -> Batcher:
        made.append(Batcher(BatchingParameters(**parameters)))
        return made[-1]

    yield build
    for batcher in made:
        batcher.close()


def test_requests_that_wait_are_joined_and_each_gets_its_rows(make):
    batcher, model = make(max_batch_size=64), Doubling()
    model.block(batcher)
    futures = [ask(batcher, model, *range(first, first + 1 + first % 3)) for first in range(10)]
    model.gate.set()
    for first, future in enumerate(futures):
        found = future.result(10)
        assert found.outputs["y"].tolist() == [2.0 * (first + i) for i in range(1 + first % 3)]
    assert len(model.calls) < 10 and max(map(len, model.calls)) > 3
    assert max(future.result().batch_rows for future in futures) == max(map(len, model.calls))


def test_a_lone_request_does_not_wait_for_others(make):
    batcher, model = make(batch_timeout_micros=5_000_000), Doubling()
    begin = time.monotonic()
    ask(batcher, model, 1.0).result(10)
    assert time.monotonic() - begin < 2


def test_a_batch_waits_for_companions_while_another_is_computed(make):
    batcher, slow, quick = make(batch_timeout_micros=300_000), Doubling(), Doubling()
    if len(batcher._threads) < 2:
        pytest.skip("needs two threads")
    slow.gate.clear()
    ask(batcher, slow, 0.0)
    assert slow.entered.acquire(timeout=10)
    futures = [ask(batcher, quick, 1.0), ask(batcher, quick, 2.0)]
    wait(futures, 10)
    slow.gate.set()
    assert [len(call) for call in quick.calls] == [2]


def test_one_bad_request_does_not_spoil_the_others(make):
    batcher, model = make(), Doubling()
    model.block(batcher)
    futures = [ask(batcher, model, value) for value in (1.0, -1.0, 3.0)]
    model.gate.set()
    assert futures[0].result(10).outputs["y"].tolist() == [2.0]
    assert futures[2].result(10).outputs["y"].tolist() == [6.0]
    with pytest.raises(ValueError, match="negative"):
        futures[1].result(10)


def test_what_nobody_waits_for_is_never_computed(make):
    batcher, model = make(), Doubling()
    model.block(batcher)
    expired, cancelled, kept = (
        ask(batcher, model, 5.0, seconds=0.05),
        ask(batcher, model, 6.0),
        ask(batcher, model, 7.0),
    )
    assert cancelled.cancel()
    time.sleep(0.1)
    model.gate.set()
    assert kept.result(10).outputs["y"].tolist() == [14.0]
    with pytest.raises(ServingFailure) as failure:
        expired.result(10)
    assert failure.value.code == "DEADLINE_EXCEEDED"
    with pytest.raises(CancelledError):
        cancelled.result(10)
    assert not {5.0, 6.0} & set(np.concatenate(model.calls).tolist())


def test_a_full_queue_refuses_and_takes_again_what_has_become_free(make):
    batcher, model = make(max_batch_size=4, max_enqueued_batches=2), Doubling()
    model.block(batcher)
    waiting = [ask(batcher, model, float(i)) for i in range(8)]
    with pytest.raises(ServingFailure) as failure:
        ask(batcher, model, 9.0)
    assert (failure.value.code, failure.value.http_status) == ("RESOURCE_EXHAUSTED", 429)
    waiting[0].cancel()
    last = ask(batcher, model, 9.0)
    model.gate.set()
    assert last.result(10).outputs["y"].tolist() == [18.0]
    assert batcher.waiting == 0


def test_a_request_may_not_be_larger_than_a_batch(make):
    with pytest.raises(ServingFailure, match="4 rows, not 5"):
        ask(make(max_batch_size=4), Doubling(), *range(5))


def test_batches_have_the_allowed_sizes(make):
    batcher, model = make(max_batch_size=8, allowed_batch_sizes=(2, 4, 8)), Doubling()
    futures = [ask(batcher, model, float(i)) for i in range(50)]
    futures.append(ask(batcher, model, 1.0, 2.0, 3.0))
    for future in futures:
        future.result(10)
    assert {len(call) for call in model.calls} <= {2, 4, 8}
    assert futures[-1].result().outputs["y"].tolist() == [2.0, 4.0, 6.0]


def test_empty_requests_are_answered(make):
    assert ask(make(allowed_batch_sizes=(64,)), Doubling()).result(10).outputs["y"].shape == (0,)


def test_other_shapes_and_fixed_batches_are_not_joined(make):
    batcher, wide = make(), Doubling(shape=(None, None), output=(None, None))
    wide.gate.clear()
    submit = lambda array: batcher.submit(wide, wide.signature, {"x": array}, len(array), time.monotonic() + 10)  # noqa: E731
    futures = [submit(np.ones([1, width], np.float32)) for width in (2, 3, 2, 3, 2)]
    wide.gate.set()
    assert [future.result(10).outputs["y"].shape for future in futures] == [(1, w) for w in (2, 3, 2, 3, 2)]
    assert all(len({*call.shape[1:]}) == 1 for call in wide.calls)
    fixed = Doubling(shape=(1,), output=(1,))
    assert not fixed.signature.joins
    for future in [ask(batcher, fixed, float(i)) for i in range(5)]:
        future.result(10)
    assert {len(call) for call in fixed.calls} == {1}


def test_texts_of_similar_length_are_joined(make):
    batcher, model = make(num_batch_threads=1), Doubling(dtype="string")
    model.gate.clear()
    ask(batcher, model, b"first")
    assert model.entered.acquire(timeout=10)
    model.calls.clear()
    texts = [b"a" * 40, b"b" * 2000, b"c" * 42, b"d" * 1900, b"e" * 38]
    futures = [ask(batcher, model, text) for text in texts]
    model.gate.set()
    for text, future in zip(texts, futures, strict=True):
        assert future.result(10).outputs["y"].tolist() == [len(text)]
    assert all(max(map(len, call)) < 3 * min(map(len, call)) for call in model.calls)
    # The oldest request is answered first, whatever its length.
    assert len(model.calls[0][0]) < 100 and any(len(call) > 1 for call in model.calls)


@given(
    lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=60),
    rows=st.lists(st.integers(1, 9), min_size=60, max_size=60),
    head=st.integers(0, 59),
    sizes=st.sampled_from([(), (1, 2, 4, 8, 16, 32), (32,)]),
)
@settings(max_examples=200, deadline=None)
def test_a_batch_has_its_oldest_request_and_keeps_its_bounds(lengths, rows, head, sizes):
    jobs = [Job({}, rows[i], length, (), 0.0) for i, length in enumerate(lengths)]
    first = jobs[head % len(jobs)]
    chosen = join(first, jobs, BatchingParameters(max_batch_size=32, allowed_batch_sizes=sizes))
    assert first in chosen and len(set(map(id, chosen))) == len(chosen)
    assert sum(job.rows for job in chosen) <= 32 and all(job in jobs for job in chosen)


def test_a_request_of_many_rows_is_computed_in_parts_of_similar_length(make):
    batcher, model = make(), Doubling(dtype="string")
    texts = [b"x" * length for length in (300, 3, 290, 5, 0, 310, 4, 295)]
    found = ask(batcher, model, *texts).result(10)
    assert found.outputs["y"].tolist() == list(map(len, texts))
    assert len(model.calls) > 1 and all(max(map(len, call)) - min(map(len, call)) < 30 for call in model.calls)
    assert found.batch_rows == max(map(len, model.calls))


def test_a_request_whose_output_is_as_wide_as_its_longest_row_is_not_divided(make):
    batcher, model = make(), Doubling(dtype="string", output=(None, None))
    ask(batcher, model, *[b"x" * 500] * 6).result(10)
    assert model.signature.joins and [len(call) for call in model.calls] == [6]


def test_a_part_that_fails_fails_its_request_and_no_other(make):
    batcher, model = make(), Doubling()
    whole, other = ask(batcher, model, *range(60), -1.0), ask(batcher, model, 2.0)
    with pytest.raises(ValueError, match="negative"):
        whole.result(10)
    assert other.result(10).outputs["y"].tolist() == [4.0] and len(model.calls) > 2


def test_parts_of_a_request_that_is_cancelled_are_not_computed(make):
    batcher, model = make(), Doubling(dtype="string")
    model.block(batcher)
    whole = ask(batcher, model, *[b"x" * 500] * 6)
    assert whole.cancel()
    model.gate.set()
    assert ask(batcher, model, b"kept").result(10).outputs["y"].tolist() == [4.0]
    assert [call.tolist() for call in model.calls] == [[b"kept"]] and batcher.waiting == 0


@given(lengths=st.lists(st.integers(0, 3000), max_size=64), sizes=st.sampled_from([(), (1, 2, 4, 8, 16), (64,)]))
@settings(max_examples=200, deadline=None)
def test_parts_have_every_row_once_and_keep_their_bound(lengths, sizes):
    found = parts(lengths, sizes)
    assert sorted(row for part in found for row in part) == list(range(len(lengths)))
    for part in found:
        longest = max(lengths[row] for row in part)
        assert len(part) == 1 or len(part) * (longest + ROW_COST) <= LARGE_BATCH * BATCH_COST


def test_parameters_are_read_from_the_file_that_export_writes(tmp_path):
    from easytransfer.export.server_config import batching_text

    path = tmp_path / "other_name.config"
    path.write_text(batching_text(48), encoding="utf-8")
    assert BatchingParameters.read(path) == BatchingParameters(48, 2000, 100, 4, (1, 2, 4, 8, 16, 32, 48))
    for text in ("max_batch_size { value: 0 }", "allowed_batch_sizes: 3", "max_batch_size: {", "no_such_key: 1"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="other_name.config"):
            BatchingParameters.read(path)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core computes one batch at a time")
@pytest.mark.parametrize("by_row", [True, False])
def test_rows_that_are_computed_one_by_one_wait_for_no_companions(make, by_row):
    batcher, model = make(batch_timeout_micros=1_000_000, num_batch_threads=2), Doubling()
    model.signature = replace(model.signature, by_row=by_row)
    model.gate.clear()
    first = ask(batcher, model, 0.0)
    assert model.entered.acquire(timeout=10)
    # One thread computes, the other is idle: with companions to come it waits for them.
    later = [ask(batcher, model, number) for number in (1.0, 2.0)]
    assert model.entered.acquire(timeout=10)
    model.gate.set()
    found = [future.result(10) for future in (first, *later)]
    assert [computed.queue_seconds > 0.5 for computed in found[1:]] == [not by_row] * 2
    assert [computed.batch_rows for computed in found] == ([1, 1, 1] if by_row else [1, 2, 2])
