"""Stages in threads: order, end, back-pressure, failures."""

import random
import threading
import time

import pytest

from easytransfer.compat.datasets import CSVReader, CSVWriter
from easytransfer.compat.pipeline import OrderedQueue, Process, ProcessExecutor
from easytransfer.errors import DataError


class Numbers(Process):
    def __init__(self, count, output):
        super().__init__("numbers", output_queue=output)
        self.left = iter(range(count))
        self.given = 0

    def process(self, in_data):
        assert in_data is None
        number = next(self.left)
        self.given += 1
        return number


class Apply(Process):
    def __init__(self, function, threads, executor, last=False, batch_size=1):
        output = None if last else executor.get_output_queue()
        super().__init__("apply", threads, executor.get_input_queue(), output, batch_size)
        self.function, self.ended = function, []

    def process(self, in_data):
        return self.function(in_data)

    def destroy(self):
        self.ended.append("destroyed")

    def abort(self):
        self.ended.append("aborted")


def build(count, stages, queue_size=3):
    """Runs numbers through functions, given with their threads and batch sizes; returns stages and executor."""
    executor = ProcessExecutor(queue_size)
    executor.add(Numbers(count, executor.get_output_queue()))
    for place, (function, threads, batch_size) in enumerate(stages):
        executor.add(Apply(function, threads, executor, place == len(stages) - 1, batch_size))
    executor.run()
    return executor


@pytest.mark.parametrize("queue_size", [1, 4])
def test_items_keep_their_order_over_many_threads(queue_size):
    """The original handed items on as its threads finished them."""
    seen, threads = [], set()

    def slow(number):
        threads.add(threading.get_ident())
        time.sleep(random.random() / 200)
        return number * 2

    executor = build(60, [(slow, 5, 1), (seen.append, 1, 1)], queue_size)
    executor.wait()
    assert seen == [2 * number for number in range(60)] and len(threads) > 1
    assert [stage.ended for stage in executor._stages[1:]] == [["destroyed"]] * 2


def test_batches_and_dropped_items():
    seen = []
    batches = build(10, [(lambda n: n if n % 3 else None, 2, 1), (lambda items: items, 3, 4), (seen.append, 1, 1)], 1)
    batches.wait()
    assert seen == [[1, 2, 4, 5], [7, 8]], "None is not handed on, the rest comes in batches"
    empty = []
    build(0, [(empty.append, 2, 1)]).wait()
    assert empty == []


def test_queues_are_bounded():
    gate = threading.Event()
    executor = build(100, [(lambda number: gate.wait(10), 1, 1)], queue_size=2)
    time.sleep(0.2)
    assert executor._stages[0].given <= 5, "two in the queue, one in work, one waiting to be put"
    gate.set()
    executor.wait()
    assert executor._stages[0].given == 100


@pytest.mark.parametrize("place", [0, 1, 2])
def test_original_failure_stops_all_stages_and_is_raised(place):
    """The original logged the trace, and raised an error that did not say what had happened."""

    def fail(number):
        raise DataError(f"row {number}")

    stages = [(lambda number: number, 3, 1), (lambda number: number, 2, 1), (lambda number: None, 1, 1)]
    stages[place] = (fail, *stages[place][1:])
    executor = build(10_000, stages)
    with pytest.raises(DataError, match="row 0"):
        executor.wait()
    assert all(stage.ended == ["aborted"] for stage in executor._stages[1:])


def test_original_index_error_in_a_source_is_not_the_end():
    class Broken(Numbers):
        def process(self, in_data):
            return [][0]

    executor = ProcessExecutor(1)
    executor.add(Broken(1, executor.get_output_queue()))
    executor.run()
    with pytest.raises(IndexError):
        executor.wait()


def test_wrong_use_is_explained():
    with pytest.raises(ValueError, match="add a stage with an output queue first"):
        ProcessExecutor(1).get_input_queue()
    with pytest.raises(NotImplementedError, match="Process must define process"):
        Process("x").process(None)
    queue = OrderedQueue(0)
    queue.put(0, ["a"])
    queue.end()
    assert queue.get(2) == (0, ["a"]) and queue.get(2) == (1, [])


def test_readers_and_writers_are_stages(tmp_path):
    (tmp_path / "in.tsv").write_text("".join(f"{i}\tt{i}\n" for i in range(25)))

    def run(work, name):
        executor = ProcessExecutor(2)
        schema = "id:int:1,text:str:1"
        output = executor.get_output_queue()
        executor.add(CSVReader(str(tmp_path / "in.tsv"), schema, batch_size=4, output_queue=output))
        executor.add(Apply(work, 3, executor))
        writer = CSVWriter(str(tmp_path / name), "twice,text", input_queue=executor.get_input_queue())
        executor.add(writer)
        executor.run()
        executor.wait()
        writer.close()

    run(lambda rows: {"twice": [2 * i for i in rows["id"]], "text": rows["text"]}, "out.tsv")
    assert (tmp_path / "out.tsv").read_text() == "".join(f"{2 * i}\tt{i}\n" for i in range(25))
    with pytest.raises(KeyError):
        run(lambda rows: {"twice": rows["none"]}, "failed.tsv")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.tsv", "out.tsv"], "no half-written table"
