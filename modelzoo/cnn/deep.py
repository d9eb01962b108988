"""Room for Keras, which goes through a functional model by recursion: one call for every layer on its longest path."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A name may say 9,999 weighted layers (`names.MOST_DIGITS`), with at most four layers of Keras for each.
MOST_CALLS = 50_000
_one_at_a_time = threading.RLock()


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Context in which Python allows calls as deep as the deepest network; networks are built one at a time."""
    with _one_at_a_time:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, MOST_CALLS))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)
