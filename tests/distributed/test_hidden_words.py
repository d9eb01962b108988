"""Pre-training on two workers ends with the weights of one."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("programs")]


@pytest.mark.parametrize("shards", [1, 2], ids=["replicas", "split"])
def test_two_workers_come_to_the_weights_of_one(run_program, shards):
    """As replicas, and as halves of every layer and of the vocabulary, whose size is odd."""
    (alone,), (first, second) = run_program("text_pretrain", 1), run_program("text_pretrain", 2, shards)
    names = [name for name in alone if not name.startswith("start/")]
    assert len(names) > 30
    for name in names:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
    assert max(np.abs(alone[name] - alone[f"start/{name.removeprefix('weight/')}"]).max() for name in names) > 1e-2
