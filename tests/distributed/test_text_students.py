"""Students of texts and classifiers of several domains on two workers end with the weights of one."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("programs")]


@pytest.mark.parametrize("method", ["distillation", "labeling", "meta_distillation", "dann", "drss"])
def test_two_workers_come_to_the_weights_of_one(run_program, method):
    (alone,), (first, second) = run_program("text_students", 1), run_program("text_students", 2)
    names = [name for name in alone if name.startswith(f"{method}/weight/")]
    assert len(names) > 20
    for name in names:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
    moved = [np.abs(alone[name] - alone[name.replace("/weight/", "/start/")]).max() for name in names]
    assert max(moved) > 1e-2
