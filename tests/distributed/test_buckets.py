"""Which gradients travel together, and in which form looked-up rows travel."""

import pytest
import tensorflow as tf

from easytransfer.distributed import reducer as module
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


@pytest.mark.parametrize(("wire", "row"), [("float32", "float32"), ("float16", "float16"), ("int8", "float16")])
def test_looked_up_rows_travel_in_half_precision_on_a_narrow_wire(monkeypatch, wire, row):
    sent = {}

    def gather(tensor, group, name):
        sent[name] = tensor.dtype.name
        return tensor

    monkeypatch.setattr(module, "all_gather_first", gather)
    reducer = GradientReducer(Group("all", (0, 1), 0), wire_dtype=wire, sparse="gather")
    rows = tf.IndexedSlices(tf.constant([[0.1, 70.0]]), tf.constant([2]), tf.constant([4, 2]))
    total = reducer._sum_sparse(rows, tf.Variable(tf.zeros([4, 2])), "table")
    assert sent == {"table/values": row, "table/indices": "int32"} and total.dtype == tf.float32
    assert total.numpy()[2].tolist() == [float(tf.cast(tf.cast(0.1, row), tf.float32)), 70.0]
