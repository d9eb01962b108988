"""Random numbers a task gets for its rows: the same row, the same numbers, on any worker or device."""

import numpy as np
import pytest
import tensorflow as tf
import toy_tasks

from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.distributed.workers import Workers
from easytransfer.train.engine import Engine

ROWS = toy_tasks.words_table(6)


class Noted(toy_tasks.WordTask):
    """Keeps what its rows were given."""

    def training_batch(self, batch, draws):
        numbers = tf.concat([draws.uniform(2), draws.uniform(1)], axis=1)
        tf.py_function(
            lambda label, found: self.seen.append((label.numpy(), found.numpy())), [batch["number"], numbers], []
        )
        return batch


def seen(batches, replica=0, replicas=1, devices=(), accumulated=1) -> list[tuple[np.ndarray, np.ndarray]]:
    task = Noted(dropout=0.0)
    task.seen = []
    task.model = task.build_model()
    workers = Workers()
    workers.replica, workers.replicas = replica, replicas
    train = TrainConfig(num_accumulated_batches=accumulated)
    engine = Engine(task, train, RuntimeConfig(seed=5), 4, workers=workers, devices=devices)
    for start in range(0, len(batches), accumulated):
        engine.run_step(batches[start : start + accumulated])
    return task.seen


def batch(rows) -> dict[str, np.ndarray]:
    return {**ROWS.batch(rows, width_of=range(6)), "number": np.array(rows, np.int32)}


def by_row(parts) -> dict[int, np.ndarray]:
    return {int(row): numbers for rows, found in parts for row, numbers in zip(rows, found, strict=True)}


@pytest.fixture(scope="module")
def alone() -> dict[int, np.ndarray]:
    return by_row(seen([batch([0, 1, 2, 3, 4, 5])]))


def assert_same(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for row, numbers in expected.items():
        np.testing.assert_array_equal(found[row], numbers)


def test_rows_and_draws_differ(alone):
    numbers = np.stack(list(alone.values()))
    assert len(np.unique(numbers)) == numbers.size


@pytest.mark.parametrize("replicas", [2, 3])
def test_workers_get_what_one_worker_gets(alone, replicas):
    found = {}
    for replica in range(replicas):
        found |= by_row(seen([batch(list(range(6))[replica::replicas])], replica, replicas))
    assert_same(found, alone)


def test_devices_of_a_worker_get_what_one_device_gets(alone):
    assert_same(by_row(seen([batch([0, 1, 2, 3, 4, 5])], devices=("/cpu:0", "/cpu:0"))), alone)
    found = {}
    for replica in range(2):
        found |= by_row(seen([batch(list(range(6))[replica::2])], replica, 2, ("/cpu:0", "/cpu:0", "/cpu:0")))
    assert_same(found, alone)


def test_steps_and_micro_batches_have_numbers_of_their_own(alone):
    whole = [batch([0, 1, 2, 3, 4, 5])]
    steps, accumulated = seen(whole * 2), seen(whole * 2, accumulated=2)
    for (_, first), (_, second) in zip(steps, accumulated, strict=True):
        np.testing.assert_array_equal(first, second)
    assert_same(by_row(steps[:1]), alone)
    assert not np.isin(steps[1][1], steps[0][1]).any()
