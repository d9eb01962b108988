"""Pre-training on two workers ends with the weights of one."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("programs")]


def test_two_workers_come_to_the_weights_of_one(run_program):
    (alone,), (first, second) = run_program("text_pretrain", 1), run_program("text_pretrain", 2)
    names = [name for name in alone if not name.startswith("start/")]
    assert len(names) > 30
    for name in names:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
    assert max(np.abs(alone[name] - alone[f"start/{name}"]).max() for name in names) > 1e-2
