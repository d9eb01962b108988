"""What `export_kinds` leaves out: checks of the second export of a kind, never of the first or of one that fails."""

from pathlib import Path

import pytest
import tensorflow as tf
from export_kinds import READING, ChecksOfOneKind, kind_of

from easytransfer.export.saved_model import write_servable
from easytransfer.savedmodel.graph import read_saved_model
from easytransfer.savedmodel.signature import Signature


def write(
    folder: Path, width: int = 3, add: float = 0.0, name: str = "y", dtype: tf.DType = tf.float32, xla: bool = False
) -> Path:
    """An export that multiplies rows of `width` numbers by weights, and adds where `add` is not 0."""
    module = tf.Module()
    module.weights = tf.Variable(tf.random.stateless_uniform([width], (1, width), dtype=dtype))

    @tf.function(jit_compile=xla or None)
    def multiply(x):
        return x * module.weights

    def serve(x):
        product = multiply(x)
        return {name: product + tf.cast(add, dtype) if add else product}

    samples = {"x": tf.ones([2, width], dtype).numpy()}
    signature = Signature(serve, {"x": tf.TensorSpec([None, width], dtype)}, samples)
    options = {"module": module, "name": "net", "assets": {}, "manifest": {}, "max_batch_size": 2}
    write_servable(folder, {"serving_default": signature}, **options)
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("kinds") / "first")


@pytest.mark.parametrize("change", [{"width": 5}, {"add": 1.0}], ids=str)
def test_weights_and_operators_make_no_kind(first, tmp_path, change):
    assert kind_of(write(tmp_path / "other", **change)) == kind_of(first)


@pytest.mark.parametrize("change", [{"name": "z"}, {"dtype": tf.float64}, {"xla": True}], ids=str)
def test_names_types_and_xla_do(first, tmp_path, change):
    assert kind_of(write(tmp_path / "other", **change)) != kind_of(first)


def checks(folder: Path, ok: bool = True) -> tuple[ChecksOfOneKind, list[Path]]:
    """The checks with a stand-in for the process, and the folders it was given."""
    asked: list[Path] = []

    def validate(folder, *, staged=False):
        asked.append(folder)
        return {"ok": ok, "checks": [], "latency_ms": {"1": 2.0}}

    found = ChecksOfOneKind(validate)
    found.folder = folder
    return found, asked


def test_the_first_of_a_kind_is_checked_fully_in_one_of_the_processes(first, tmp_path):
    (one, asked), (other, by_the_other) = checks(tmp_path), checks(tmp_path)
    assert one(first, staged=True)["latency_ms"] and asked == [first]
    report = other(first, staged=True)
    assert report["ok"] and [check["name"] for check in report["checks"]] == list(READING)
    assert report["latency_ms"] == {} and by_the_other == []


def test_one_that_failed_leaves_its_kind_open(first, tmp_path):
    one, asked = checks(tmp_path, ok=False)
    assert not one(first, staged=True)["ok"] and not one(first, staged=True)["ok"] and asked == [first, first]


def test_published_ones_and_marked_tests_are_always_checked_fully(first, tmp_path):
    one, asked = checks(tmp_path)
    for staged, every in ((True, False), (False, False), (True, True)):
        one.every = every
        one(first, staged=staged)
    assert len(asked) == 3


def test_a_broken_file_is_found_in_a_known_kind_too(first, tmp_path):
    one, asked = checks(tmp_path)
    one(first, staged=True)
    broken = write(tmp_path / "broken")
    proto = read_saved_model(broken)
    proto.meta_graphs[0].graph_def.node[0].device = "/job:worker/task:7"
    (broken / "saved_model.pb").write_bytes(proto.SerializeToString())
    report = one(broken, staged=True)
    assert not report["ok"] and report["checks"][-1]["name"] == "operators" and asked == [first]


def test_the_suite_uses_it():
    from easytransfer.export import saved_model

    assert isinstance(saved_model.validate, ChecksOfOneKind) and saved_model.validate.folder.is_dir()
    assert saved_model.validate.every is False


@pytest.mark.every_check
def test_a_marked_test_is_told_apart():
    from easytransfer.export import saved_model

    assert saved_model.validate.every is True
