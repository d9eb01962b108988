"""Says what to change when a batch does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from easytransfer.deferred import tf
from easytransfer.errors import ResourceError


@contextmanager
def explained_out_of_memory(doing: str, fix: str) -> Iterator[None]:
    """Turns the framework's out-of-memory error into a `ResourceError`.

    Args:
        doing: What was going on, such as `training with batch_size=32`.
        fix: Settings that need less memory.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        first_line = str(getattr(error, "message", error)).strip().split("\n")[0][:200]
        raise ResourceError(f"out of memory while {doing} ({first_line})", fix=fix) from error
