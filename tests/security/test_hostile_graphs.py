"""SavedModels that are programs of another kind: refused wherever one is loaded."""

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.errors import ModelError
from easytransfer.savedmodel.loading import load_exported
from modelzoo.cnn.saved_model import resolve_handle


def written(folder, function):
    """Saves a module whose one signature calls `function` on a vector of strings."""
    module = tf.Module()
    module.serve = tf.function(
        lambda text: {"out": function(text)}, input_signature=[tf.TensorSpec([None], tf.string, name="text")]
    )
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return folder


def leak(text):
    with tf.control_dependencies([tf.io.write_file("stolen", text[0])]):
        return tf.identity(text)


GRAPHS = {
    "WriteFile": leak,
    "ReadFile": lambda text: tf.map_fn(tf.io.read_file, text),
    "MatchingFiles": lambda text: tf.io.matching_files("/home/*/.ssh/*"),
    "PrintV2": lambda text: (tf.print(text), text)[1],
    "PyFunc": lambda text: tf.numpy_function(lambda value: value, [text], tf.string),
}


@pytest.mark.parametrize("function", GRAPHS.values(), ids=GRAPHS.keys())
def test_graphs_that_reach_beyond_the_model(tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    folder = written(tmp_path / "1", function)
    with pytest.raises(ModelError, match="operators that a server does not run"):
        load_exported(folder)
    with pytest.raises(ModelError, match="operators that a server does not run"):
        resolve_handle(str(folder))
    assert not (tmp_path / "stolen").exists()


def test_a_plain_graph_is_loaded(tmp_path):
    folder = written(tmp_path / "1", tf.strings.upper)
    answer = load_exported(folder).signatures["serving_default"](text=np.array(["a"], object))
    assert answer["out"].tolist() == ["A"]
    assert resolve_handle(str(folder)) == str(folder)


def test_links_out_of_a_saved_model(tmp_path):
    folder = written(tmp_path / "1", tf.strings.upper)
    (tmp_path / "secret").write_text("x")
    (folder / "assets" / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out of its model"):
        resolve_handle(str(folder))


@pytest.mark.parametrize("file", ["variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_damaged_weights(tmp_path, file):
    module = tf.Module()
    module.weight = tf.Variable(tf.random.stateless_uniform([1000], [1, 2]))
    spec = tf.TensorSpec([1000], tf.float32)
    module.serve = tf.function(lambda x: {"out": x * module.weight}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.serve)
    (tmp_path / "1" / file).write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_exported(tmp_path / "1")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"text"])
def test_what_is_no_graph(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError):
        load_exported(tmp_path)
