"""Adversarial training on two workers: the lambda, the weights and the metrics of one."""

import numpy as np
import pytest


@pytest.mark.slow
def test_two_workers_have_the_lambda_and_the_weights_of_one(run_program):
    (alone,), several = run_program("adversarial_training", 1), run_program("adversarial_training", 2)
    first, second = several
    assert first.keys() == alone.keys()
    # Two steps an epoch; lambda moves by 0.25 after each but the first two.
    assert alone["batches"] == 10 and alone["lambda"] == 8.0
    for name, value in alone.items():
        # A row that is just robust counts 1 / 32.
        tolerance = 0.05 if name.startswith("metric") else 2e-4
        np.testing.assert_allclose(first[name], value, atol=tolerance, rtol=tolerance, err_msg=name)
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
