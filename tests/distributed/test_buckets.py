"""Which gradients travel together."""

import pytest
import tensorflow as tf

from easytransfer.distributed.collectives import Group
from easytransfer.distributed.reducer import GradientReducer


@pytest.mark.parametrize(
    ("numbers", "bucket_mb", "expected"),
    [
        ([10, 20, 30], 8, [[0, 1, 2]]),  # less than the smallest bucket
        ([10, 20, 30], 1e-4, [[0], [1], [2]]),
        ([65_536] * 4, 8, [[0], [1], [2], [3]]),  # the smallest bucket is full with each
        ([1_000_000] * 16, 8, [[i, i + 1] for i in range(0, 16, 2)]),  # about eight
        ([1_000_000] * 40, 8, [[i, i + 1] for i in range(0, 40, 2)]),  # 8 MiB
        ([5_000_000, 10], 8, [[0], [1]]),
    ],
)
def test_buckets(numbers, bucket_mb, expected):
    reducer = GradientReducer(Group("all", (0, 1), 0), bucket_mb=bucket_mb)
    assert reducer.buckets([tf.TensorSpec([count]) for count in numbers]) == expected
