"""Adversarial training on two workers: the lambda, the weights and the metrics of one."""

import numpy as np


def test_two_workers_have_the_lambda_and_the_weights_of_one(run_program):
    (alone,), several = run_program("adversarial_training", 1), run_program("adversarial_training", 2)
    first, second = several
    assert first.keys() == alone.keys()
    for name in ("lambda", "natural_risk", "robust_risk", "batches"):
        assert first[name] == second[name], name
    assert alone["lambda"] > 6.2, "it has moved"
    for name, value in alone.items():
        np.testing.assert_allclose(first[name], value, atol=2e-4, rtol=1e-4, err_msg=name)
    for name in (name for name in alone if name.startswith("weight")):
        np.testing.assert_array_equal(first[name], second[name])
