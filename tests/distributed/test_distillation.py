"""Distillation on two workers: the weights of one worker with the same global batches, and one multiplier."""

import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("programs")


def test_two_workers_train_as_one_and_take_the_multiplier_of_the_first(run_program):
    (alone,), (first, second) = run_program("distillation", 1), run_program("distillation", 2)
    assert second["measured"] != first["measured"], "it was measured on other images"
    assert second["multiplier"] == first["multiplier"] == first["measured"]
    for name in (name for name in alone if name.startswith("weight_")):
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(second[name], first[name])
