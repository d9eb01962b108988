"""What a contribution means besides its value: probabilities, shares, and the effect of leaving a group out."""

from __future__ import annotations

import numpy as np

from easytransfer.metrics.scores import divide, sigmoid


def shares(contributions: np.ndarray) -> np.ndarray:
    """Returns |c_k| / sum of |c_j| over groups, [..., groups]; 0 where nothing contributes."""
    size = np.abs(np.asarray(contributions, np.float64))
    return divide(size, np.broadcast_to(size.sum(axis=-1, keepdims=True), size.shape))


def drop_one_effects(logit: np.ndarray, contributions: np.ndarray) -> np.ndarray:
    """Returns p - sigmoid(F - c_k), [..., groups]: probability that is lost without the contribution of group k.

    These do not add up to p - 0.5, so they are never called contributions.

    Args:
        logit: F, [...].
        contributions: c_k, [..., groups].
    """
    logit = np.asarray(logit, np.float64)[..., None]
    return sigmoid(logit) - sigmoid(logit - contributions)
