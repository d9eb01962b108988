"""Model calls of jobs."""

import numpy as np
import tensorflow as tf

from appzoo.jobs.inference import traced_once
from easytransfer.config.job import RuntimeConfig


def test_all_batches_go_through_one_graph():
    traced = []

    def function(batch):
        traced.append({name: tuple(tensor.shape) for name, tensor in batch.items()})
        return {"sums": tf.reduce_sum(batch["ids"], 1) + tf.cast(tf.reduce_sum(batch["numbers"], 1), tf.int32)}

    call = traced_once(function, RuntimeConfig())
    for rows, width in ((2, 3), (2, 5), (4, 5), (2, 3)):
        batch = {"ids": np.ones([rows, width], np.int32), "numbers": np.ones([rows, 7], np.float32)}
        np.testing.assert_array_equal(call(batch)["sums"], np.full(rows, width + 7))
    # A first graph for the first shapes alone rounded differently: a resumed job did not write equal files.
    assert traced == [{"ids": (None, None), "numbers": (None, 7)}]
