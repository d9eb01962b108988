"""Matching of texts and images on two workers: the weights and the metrics of one."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("programs")]


def test_two_workers_come_to_the_weights_and_metrics_of_one(run_program):
    (alone,), (first, second) = run_program("multimodal_match", 1), run_program("multimodal_match", 2)
    names = [name for name in alone if "/" not in name or not name.startswith(("start/", "metric/"))]
    assert len(names) > 30
    for name in names:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5, err_msg=name)
    assert max(np.abs(alone[name] - alone[f"start/{name}"]).max() for name in names) > 1e-3
    metrics = [name for name in alone if name.startswith("metric/")]
    assert "metric/rank_at_1" in metrics
    for name in metrics:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], atol=1e-4, err_msg=name)
