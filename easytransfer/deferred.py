"""TensorFlow, imported when it is first used: what only reads, encodes and writes rows does without it.

Use it as `from easytransfer.deferred import tf`, and for nothing that runs while a module is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf
else:

    class _Deferred:
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("tensorflow"), name)

    tf = _Deferred()

__all__ = ["tf"]
