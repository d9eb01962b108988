"""Mixed precision: the Keras policy while a model is built, and what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig
from easytransfer.deferred import tf

_CPU_FLAGS = Path("/proc/cpuinfo")


@contextmanager
def compute_precision(name: str) -> Iterator[None]:
    """Builds layers inside with `name` (none, float16, bfloat16) as compute dtype and float32 variables."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32" if name == "none" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def compiles(runtime: RuntimeConfig) -> bool:
    """Whether steps are compiled with XLA: when asked for, and for bfloat16 on a CPU without AVX-512.

    There TensorFlow's own bfloat16 kernels convert every element by itself: a training step of MiniLM took over 20 s,
    compiled 1.5 s, since XLA multiplies in float32.
    """
    if runtime.enable_xla or runtime.mixed_precision != "bfloat16" or tf.config.list_physical_devices("GPU"):
        return runtime.enable_xla
    return _CPU_FLAGS.is_file() and "avx512f" not in _CPU_FLAGS.read_text(encoding="utf-8")


def pad_multiple(runtime: RuntimeConfig) -> int:
    """Returns what widths of batches are rounded up to: few widths where each is compiled, aligned ones on a GPU."""
    if compiles(runtime):
        return 32
    return 8 if tf.config.list_physical_devices("GPU") else 1
