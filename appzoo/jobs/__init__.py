"""What the command line runs, as functions anyone can call: config in, plain dict out.

Each is imported when it is first asked for: predictions by LiteRT need no TensorFlow.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appzoo.jobs.evaluate import evaluate
    from appzoo.jobs.export import export
    from appzoo.jobs.features import extract_features
    from appzoo.jobs.predict import predict
    from appzoo.jobs.preprocess import preprocess
    from appzoo.jobs.train import train

__all__ = ["evaluate", "export", "extract_features", "predict", "preprocess", "train"]


class _Jobs(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = "features" if name == "extract_features" else name
        return getattr(importlib.import_module(f"appzoo.jobs.{module}"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # The import of a module puts it here under its name, which is that of the function in it.
        function = getattr(value, name, None) if name in __all__ and isinstance(value, types.ModuleType) else None
        super().__setattr__(name, function or value)


sys.modules[__name__].__class__ = _Jobs
