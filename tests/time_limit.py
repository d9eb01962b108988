"""Ends what takes longer than it may, instead of waiting for it."""

import signal
from contextlib import contextmanager


@contextmanager
def within(seconds, of_this_process=False):
    """Raises TimeoutError in the block when it takes longer; for the main thread.

    Args:
        seconds: How long the block may take.
        of_this_process: Count what this process computes, and not the time it waits for anything or anyone.
    """

    def too_slow(*_):
        raise TimeoutError(f"not done after {seconds} s")

    told, clock = signal.SIGALRM, signal.ITIMER_REAL
    if of_this_process:
        told, clock = signal.SIGVTALRM, signal.ITIMER_VIRTUAL
    before = signal.signal(told, too_slow)
    signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        signal.setitimer(clock, 0)
        signal.signal(told, before)
