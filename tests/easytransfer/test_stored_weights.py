"""Weights in fewer bytes: what is left of them, and that an export answers with exactly that."""

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.errors import ModelError
from easytransfer.export.saved_model import export_saved_model
from easytransfer.export.stored_weights import SMALLEST, stored_weights
from easytransfer.savedmodel.loading import load_exported
from easytransfer.savedmodel.signature import Signature

ROWS, WIDTH, OUTPUTS = 300, 64, 80


class Network(tf.Module):
    """Rows of a table, a kernel, a bias."""

    def __init__(self) -> None:
        generator = tf.random.Generator.from_seed(3)
        self.table = tf.Variable(generator.normal([ROWS, WIDTH]), name="word_embeddings")
        # One output of another size than the rest, and one of zeros.
        kernel = generator.normal([WIDTH, OUTPUTS]) * tf.constant([100.0] + [0.1] * (OUTPUTS - 2) + [0.0])
        self.kernel = tf.Variable(kernel, name="kernel")
        self.bias = tf.Variable(generator.normal([OUTPUTS]), name="bias")

    def answer(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        # A branch of its own function, as recurrent layers and conditions have them.
        hidden = tf.cond(tf.size(ids) > 0, lambda: tf.gather(self.table, ids), lambda: tf.zeros([0, WIDTH]))
        return {"second": tf.reduce_sum(hidden, axis=1), "logits": tf.matmul(hidden, self.kernel) + self.bias}


def signatures(network: Network) -> dict[str, Signature]:
    samples = {"ids": np.arange(7, dtype=np.int32)}
    return {"serving_default": Signature(network.answer, {"ids": tf.TensorSpec([None], tf.int32)}, samples)}


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_large_weights_are_rounded_inside_only(kind):
    network = Network()
    before = [variable.numpy() for variable in network.variables]
    with stored_weights(network.variables, kind) as stored:
        table, kernel = network.table.numpy(), network.kernel.numpy()
        assert {variable.name for variable, _ in stored} == {"word_embeddings:0", "kernel:0"}
        np.testing.assert_array_equal(network.bias, before[network.variables.index(network.bias)])
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    if kind == "float16":
        np.testing.assert_array_equal(table, network.table.numpy().astype(np.float16).astype(np.float32))
        return
    for rounded, exact, axis in ((table, network.table.numpy(), 1), (kernel, network.kernel.numpy(), 0)):
        steps = np.abs(exact).max(axis=axis, keepdims=True) / 127
        assert (np.abs(rounded - exact) <= 0.5001 * steps).all()
        assert np.abs(rounded).max(axis=axis) == pytest.approx(np.abs(exact).max(axis=axis))


@pytest.mark.every_check
@pytest.mark.parametrize(("kind", "share"), [("float32", 1.0), ("float16", 0.51), ("int8", 0.28)])
def test_an_export_answers_with_what_is_left(kind, share, tmp_path):
    network = Network()
    with stored_weights(network.variables, kind) as stored:
        expected = {name: value.numpy() for name, value in network.answer(tf.constant([5, 250])).items()}
        report = export_saved_model(
            signatures(network), module=network, base=tmp_path, name="net", assets={}, manifest={}, stored=stored
        )
    # The checks of the export compare eager calls, sessions and the C API with the answers in memory.
    found = load_exported(report.path).signatures["serving_default"](ids=tf.constant([5, 250]))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
    assert (np.abs(found["logits"] - network.answer(tf.constant([5, 250]))["logits"]).max() > 1e-5) == (
        kind != "float32"
    )
    (data,) = (report.path / "variables").glob("variables.data*")
    whole = 4 * sum(int(np.prod(variable.shape)) for variable in network.variables)
    assert data.stat().st_size == pytest.approx(share * whole, rel=0.1)


def test_two_exports_in_one_process_keep_their_own_weights(tmp_path):
    answers, exports = [], []
    for version in range(2):
        network = Network()
        network.kernel.assign(network.kernel + version)
        with stored_weights(network.variables, "int8") as stored:
            options = {"module": network, "base": tmp_path, "name": "net", "assets": {}, "manifest": {}}
            report = export_saved_model(signatures(network), stored=stored, **options)
            answers.append(network.answer(tf.constant([1]))["logits"].numpy())
        exports.append(load_exported(report.path))
    for export, answer in zip(exports, answers, strict=True):
        found = export.signatures["serving_default"](ids=tf.constant([1]))["logits"]
        np.testing.assert_allclose(found, answer, rtol=1e-5, atol=1e-5)


def test_numbers_out_of_range_are_refused():
    large = tf.Variable(tf.fill([SMALLEST, 2], 1e6), name="large")
    with (
        pytest.raises(ModelError, match="large:0 has numbers that float16 cannot hold"),
        stored_weights([large], "float16"),
    ):
        pass
    with stored_weights([large], "int8"):
        np.testing.assert_allclose(large, 1e6)
