"""Stereo matching on two workers: losses, each by its own weight, masks and teacher are those of one."""

import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("programs")


@pytest.mark.slow
def test_two_workers_come_to_the_weights_of_one(run_program):
    (alone,), (first, second) = run_program("stereo_matching", 1), run_program("stereo_matching", 2)
    names = [name for name in alone if name != "hidden"]
    assert len(names) == 108 and alone["hidden"] == pytest.approx(first["hidden"], rel=1e-3)
    for name in names:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
    moved = [name for name in names if "/network/" in name and "kernel" in name]
    assert max(np.abs(alone[name] - alone[name.replace("/network/", "/teacher/")]).max() for name in moved) > 1e-3
    assert all((alone[name] != alone[name.replace("/network/", "/teacher/")]).any() for name in moved)
