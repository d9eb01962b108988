"""Vision-language pre-training on two workers ends with the weights of one, with fixed and with adaptive weights."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("programs")]


def test_two_workers_come_to_the_weights_of_one(run_program):
    (alone,), (first, second) = run_program("vl_pretraining", 1), run_program("vl_pretraining", 2)
    for run in ("lamp", "adaptive"):
        names = [name for name in alone if name.startswith(f"{run}/") and not name.startswith(f"{run}/start/")]
        assert len(names) > 50
        for name in names:
            np.testing.assert_array_equal(second[name], first[name], err_msg=name)
            np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
        moved = [np.abs(alone[name] - alone[name.replace(f"{run}/", f"{run}/start/", 1)]).max() for name in names]
        assert max(moved) > 1e-2
