"""`from easytransfer import tf1 as tf`: what scripts of the original use of TensorFlow 1, so that they run unchanged.

Names are looked up in `tensorflow.compat.v1`, then in TensorFlow. `app.run` hands its arguments to `base_model`, and
`estimator.ModeKeys`, which TensorFlow no longer has, are the constants of `build_logits`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow

from easytransfer.compat.command_line import FLAGS
from easytransfer.compat.config import ModeKeys
from easytransfer.compat.running import report_error


def _run(main: Callable[[list[str]], Any], argv: Sequence[str] | None = None) -> None:
    """Runs a script's `main` with its own flags and ours read from `argv`; the first one is the name of the script."""
    if argv is not None:
        sys.excepthook = report_error
        FLAGS.read(argv[1:])
    tensorflow.compat.v1.app.run(main=main, argv=None if argv is None else list(argv))


app = SimpleNamespace(run=_run, flags=tensorflow.compat.v1.flags)
estimator = SimpleNamespace(ModeKeys=ModeKeys)


def __getattr__(name: str) -> Any:
    for module in (tensorflow.compat.v1, tensorflow):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"TensorFlow has no attribute {name!r}")
