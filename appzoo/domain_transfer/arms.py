"""The sides of an experiment: every algorithm, beside training on one domain alone and on both together."""

from __future__ import annotations

from typing import get_args

from appzoo.domain_transfer.config import Algorithm
from easytransfer.app.arms import Arm

BASELINES = ("source_only", "target_only", "joint")
_METHODS = tuple(name for name in get_args(Algorithm) if name not in BASELINES)

ARMS = {
    "": {
        name: Arm({"transfer.algorithm": name}, baseline=name in BASELINES) for name in (*BASELINES, *_METHODS)
    }
}  # fmt: skip
