"""Pruning on two workers: one plan, one network, one set of weights, and samples that only the first one wrote."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("programs")


def test_two_workers_come_to_the_same_network(run_program):
    first, second = run_program("pruning", 2)
    assert str(first["plan"]) == str(second["plan"])
    plan = json.loads(str(first["plan"]))
    assert [sample["name"] for sample in plan["samples"]] == ["base", "depth-3-of-6", "width-0.5"]
    names = [name for name in first if name.startswith("after_")]
    assert names and first.keys() == second.keys()
    for name in names:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    # What the pruned network starts from is the chief's; the trainer gives it to the others.
    assert {name for name in first if name.startswith("before_")}
