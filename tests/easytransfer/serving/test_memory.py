"""Memory over the life of a server: versions that are given up are gone."""

import gc
import os
import shutil
import weakref
from pathlib import Path

import pytest
import tensorflow as tf
from running_server import RunningServer
from toy_models import FLOATS

SWAPS, SETTLED = 20, 4
# Bytes of the weights of a version.
WEIGHTS = 32 * 2**20


def save_wide(folder: Path, size: int = WEIGHTS) -> Path:
    """Saves a version whose weights have so many bytes: it adds their mean, which is zero."""
    wide = tf.Module()
    wide.weights = tf.Variable(tf.zeros([size // 4]))
    function = tf.function(lambda x: {"y": x + tf.reduce_mean(wide.weights)}, autograph=False)
    signature = function.get_concrete_function(tf.TensorSpec(FLOATS.shape, FLOATS.dtype, name="x"))
    tf.saved_model.save(wide, str(folder), signatures=signature)
    return folder


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_graph_of_a_version_is_given_back_without_waiting_for_python(tmp_path):
    first = save_wide(tmp_path / "wide" / "1", size=4)
    with RunningServer(tmp_path, poll_seconds=0) as server:
        repository = server.server.repository
        graph = weakref.ref(repository._models["wide"].loaded[1]._session.graph)
        shutil.copytree(first, first.parent / "2")
        gc.disable()
        try:
            repository.poll()
            assert graph() is None
        finally:
            gc.enable()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stays_over_twenty_versions(tmp_path):
    first = save_wide(tmp_path / "wide" / "1")
    held, seen = [], []
    with RunningServer(tmp_path, poll_seconds=0) as server:
        repository = server.server.repository
        for version in range(1, SWAPS + 1):
            assert server.client.arrays("wide", {"x": [1.0]})["y"].tolist() == [1.0]
            seen.append(weakref.ref(repository._models["wide"].loaded[version]))
            shutil.copytree(first, first.parent / str(version + 1))
            repository.poll()
            held.append(resident())
            print(f"{version} versions given up: {held[-1] / 2**20:.0f} MiB")
        alive = [number for number, servable in enumerate(seen, 1) if servable() is not None]
    # The last one too: a thread that waited for work held it until there was some.
    assert alive == []
    # One version more than after the first swaps would be seen, let alone sixteen.
    assert held[-1] - held[SETTLED - 1] < WEIGHTS // 2
