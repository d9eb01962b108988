"""Ends what takes longer than it may, instead of waiting for it."""

import signal
from contextlib import contextmanager


@contextmanager
def within(seconds):
    """Raises TimeoutError in the block when it takes longer; for the main thread."""

    def too_slow(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
