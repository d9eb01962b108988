"""TensorFlow 1, by the name that scripts import: `easytransfer.compat.tf1`."""

from typing import Any

from easytransfer.compat import tf1 as _tf1


def __getattr__(name: str) -> Any:
    return getattr(_tf1, name)
