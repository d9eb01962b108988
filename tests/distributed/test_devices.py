"""Devices of one process that share every batch give the weights of one device."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.config.job import DistributionConfig
from easytransfer.distributed.devices import add_up, devices_of, fill_rows

PROGRAM = Path(__file__).with_name("device_program.py")


def train(folder: Path, devices: int, accumulated: int) -> tuple[dict[str, np.ndarray], set[str]]:
    """Returns the weights, and the devices that multiplied matrices."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "0"}
    command = [sys.executable, str(PROGRAM), str(folder), str(devices), str(accumulated)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    placed = set(re.findall(r"\(MatMul\): \S*/device:(CPU:\d)", done.stdout + done.stderr))
    with np.load(folder / f"{devices}-{accumulated}.npz") as arrays:
        return dict(arrays), placed


@pytest.mark.parametrize("accumulated", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_devices_equal_one(tmp_path, accumulated):
    (alone, there), (shared, here) = train(tmp_path, 1, accumulated), train(tmp_path, 2, accumulated)
    assert there == {"CPU:0"} and here == {"CPU:0", "CPU:1"}
    for name, value in alone.items():
        np.testing.assert_allclose(shared[name], value, atol=1e-5)


def test_one_device_is_not_shared(caplog):
    assert devices_of(DistributionConfig(distribution_strategy="mirrored")) == []
    assert devices_of(DistributionConfig()) == []


def test_filled_rows_have_no_weight():
    filled = fill_rows({"x": np.arange(3), "example_weight": np.ones(3, np.float32)}, 4)
    np.testing.assert_array_equal(filled["x"], [0, 1, 2, 0])
    np.testing.assert_array_equal(filled["example_weight"], [1, 1, 1, 0])


def test_sums_of_sparse_and_dense_gradients():
    sparse = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([1, 1]), dense_shape=tf.constant([3, 2]))
    together = add_up([sparse, sparse])
    assert isinstance(together, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(together), [[0, 0], [4, 4], [0, 0]])
    np.testing.assert_array_equal(add_up([sparse, tf.ones([3, 2])]), [[1, 1], [3, 3], [1, 1]])
    assert add_up([None, None]) is None
