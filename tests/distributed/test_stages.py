"""Stages of a training on two workers: the weights of one, and those of an unbroken run wherever it was ended."""

import numpy as np


def test_two_workers_come_to_the_weights_of_one_through_all_stages(run_program):
    (alone,), (first, second) = run_program("staged", 1), run_program("staged", 2)
    names = [name.removeprefix("unbroken/") for name in alone if name.startswith("unbroken/")]
    assert len(names) == 5
    for name in names:
        np.testing.assert_allclose(first[f"unbroken/{name}"], alone[f"unbroken/{name}"], atol=1e-5, err_msg=name)
        for rank in (alone, first, second):
            np.testing.assert_array_equal(rank[f"broken/{name}"], rank[f"unbroken/{name}"], err_msg=name)
        np.testing.assert_array_equal(second[f"unbroken/{name}"], first[f"unbroken/{name}"])
