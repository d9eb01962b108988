"""Fixtures of the model zoo's tests."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import pytest
from tiny_bert import VOCABULARY


@pytest.fixture
def batch():
    """Three rows of 11 tokens, two of them padded, with two segments."""
    random = np.random.default_rng(3)
    ids = random.integers(0, len(VOCABULARY), [3, 11], dtype=np.int32)
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, 2:] = 0
    segments = np.zeros_like(ids)
    segments[:, 5:] = 1
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments}
