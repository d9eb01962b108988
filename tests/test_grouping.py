"""Tests that share a costly fixture run in one process; else the suite takes half as long again."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_pytest_xdist_sees_the_groups_of_conftest(request):
    assert request.node.nodeid.endswith(f"@{__file__}")
