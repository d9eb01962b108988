"""The compiled network of an export: its shapes, its answers, and that it is compiled before the first client asks."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from easytransfer import keras
from easytransfer.export.compiled import Rounding, compiled
from easytransfer.export.saved_model import write_servable
from easytransfer.export.warmup import write_warmup
from easytransfer.savedmodel.requests import read_requests
from easytransfer.savedmodel.signature import Signature

ROUNDING = Rounding.up_to(6, 40)


class Sums(keras.Model):
    """Adds up masked numbers; says which shape it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(2.0)

    def call(self, batch, training=False):
        masked = self.scale * batch["values"] * batch["mask"]
        shape = tf.broadcast_to(tf.shape(masked), [tf.shape(masked)[0], 2])
        return {"masked": masked, "sums": tf.reduce_sum(masked, axis=1), "shape": shape}


def traced(model):
    specs = {name: tf.TensorSpec([None, None]) for name in ("values", "mask")}
    return tf.function(lambda **batch: model(batch, training=False)).get_concrete_function(**specs)


def batch_of(rows: int, length: int) -> dict[str, tf.Tensor]:
    values = tf.random.stateless_normal([rows, length], (rows, length))
    return {"values": values, "mask": tf.cast(values < 1, tf.float32)}


@pytest.mark.parametrize(
    ("most", "rows", "lengths"),
    [
        ((6, 40), (1, 2, 4, 6), (16, 32, 40)),
        ((1, 16), (1,), (16,)),
        ((64, 128), (1, 2, 4, 8, 16, 32, 64), (16, 32, 64, 128)),
        ((2, 3), (1, 2), (3,)),
    ],
)
def test_shapes_are_powers_of_two(most, rows, lengths):
    assert Rounding.up_to(*most) == Rounding(rows, lengths)


@pytest.mark.parametrize(
    ("rows", "length", "expected"),
    [(1, 16, (1, 16)), (3, 5, (4, 16)), (5, 33, (6, 40)), (0, 7, (1, 16)), (6, 40, (6, 40)), (9, 50, (9, 50))],
)
def test_answers_are_those_of_the_model_in_a_rounded_shape(rows, length, expected):
    model, batch = Sums(), batch_of(rows, length)
    plain = model(batch, training=False)
    with compiled(model, ROUNDING):
        found = traced(model)(**batch)
    np.testing.assert_array_equal(found["shape"], np.tile(expected, (rows, 1)))
    assert found["masked"].shape == (rows, length)
    np.testing.assert_allclose(found["masked"], plain["masked"], rtol=1e-6)
    np.testing.assert_allclose(found["sums"], plain["sums"], rtol=1e-5, atol=1e-6)


def test_only_graphs_for_prediction_are_compiled():
    model, batch = Sums(), batch_of(3, 5)
    with compiled(model, ROUNDING):
        inside = traced(model)
        assert tuple(model(batch, training=False)["shape"][0]) == (3, 5), "eager"
        assert tuple(tf.function(model)(batch, training=True)["shape"][0]) == (3, 5), "training"
    assert tuple(tf.function(model)(batch, training=False)["shape"][0]) == (3, 5), "behind the context"
    assert any(f.attr["_XlaMustCompile"].b for f in inside.graph.as_graph_def().library.function)


def test_outputs_are_cut_to_the_input_they_belong_to():
    class Words(keras.Model):
        length_inputs = {"tags": "word_starts"}  # noqa: RUF012

        def call(self, batch, training=False):
            tags = tf.gather(batch["ids"], batch["word_starts"], batch_dims=1)
            return {"tokens": batch["ids"] + 1, "tags": tags}

    batch = {"ids": tf.range(10)[None], "word_starts": tf.constant([[1, 4, 5]])}
    model, specs = Words(), {name: tf.TensorSpec([None, None], tf.int32) for name in batch}
    with compiled(model, ROUNDING):
        found = tf.function(lambda **inputs: model(inputs, training=False)).get_concrete_function(**specs)(**batch)
    np.testing.assert_array_equal(found["tokens"], tf.range(1, 11)[None])
    np.testing.assert_array_equal(found["tags"], [[1, 4, 5]])


def test_inputs_of_a_fixed_length_keep_it():
    class Means(keras.Model):
        def call(self, image, training=False):
            rows = tf.broadcast_to(tf.shape(image)[0], tf.shape(image)[:1])
            return {"mean": tf.reduce_mean(image, axis=(1, 2)), "rows": rows}

    model, image = Means(), tf.random.stateless_normal([3, 5, 7], (1, 2))
    with compiled(model, ROUNDING):
        function = tf.function(lambda image: model(image, training=False))
        found = function.get_concrete_function(tf.TensorSpec([None, 5, 7]))(image)
    np.testing.assert_array_equal(found["rows"], [4, 4, 4])
    np.testing.assert_allclose(found["mean"], np.mean(image, axis=(1, 2)), rtol=1e-5)


def test_every_shape_is_among_the_warm_up_requests(tmp_path):
    model, samples = Sums(), {name: value.numpy() for name, value in batch_of(3, 5).items()}
    specs = {name: tf.TensorSpec([None, None], tf.float32) for name in samples}
    arrays = Signature(lambda **batch: model(batch, training=False), specs, samples)

    def read(text):
        values = tf.cast(tf.strings.unicode_decode(text, "UTF-8").to_tensor(), tf.float32)
        return model({"values": values, "mask": tf.ones_like(values)}, training=False)

    raw = Signature(read, {"text": tf.TensorSpec([None], tf.string)}, {"text": np.array(["a", "bc"], object)})
    with compiled(model, ROUNDING):
        write_servable(
            tmp_path / "1", {"serving_default": raw, "predict_ids": arrays}, module=model, name="sums", assets={},
            manifest={}, max_batch_size=6, rounding=ROUNDING,
        )  # fmt: skip
    found: dict[str, list] = {}
    for request in read_requests(tmp_path / "1"):
        shapes = {tf.make_ndarray(tensor_pb2.TensorProto.FromString(item.value)).shape for item in request.inputs}
        found.setdefault(request.model_spec.signature_name, []).extend(shapes)
    assert found["serving_default"] == [(1,), (6,)]
    assert found["predict_ids"] == [(rows, length) for rows in (1, 2, 4, 6) for length in (16, 32, 40)]
    # What was compiled for one signature serves the other one: they call the same function.
    library = tf.saved_model.load(str(tmp_path / "1")).signatures
    names = [
        {f.signature.name for f in library[key].graph.as_graph_def().library.function if f.attr["_XlaMustCompile"].b}
        for key in ("serving_default", "predict_ids")
    ]
    assert names[0] == names[1] and len(names[0]) == 1


def test_pictures_of_any_size_have_no_length(tmp_path):
    """A signature on pixels brings them to the size of the network; one of them may be the largest that is taken."""
    shape, pixels = [None, None, None, 3], np.zeros([2, 5, 7, 3], np.uint8)
    picture = Signature(
        lambda image: {"n": tf.shape(image)}, {"image": tf.TensorSpec(shape, tf.uint8)}, {"image": pixels}
    )
    (tmp_path / "assets.extra").mkdir()
    write_warmup(tmp_path, "pictures", {"serving_image": picture}, 6, ROUNDING)
    shapes = [
        tf.make_ndarray(tensor_pb2.TensorProto.FromString(item.value)).shape
        for request in read_requests(tmp_path)
        for item in request.inputs
    ]
    assert shapes == [(rows, 5, 7, 3) for rows in (1, 2, 4, 6)]
