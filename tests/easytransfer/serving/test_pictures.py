"""Pictures that the decoders of TensorFlow do not survive, sent to graphs that give whatever comes to a decoder."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from easytransfer.image import graph
from easytransfer.savedmodel.signature import EXAMPLES
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.saved_model import SavedModelServable, _refused
from easytransfer.serving.servable import LoadedSignature

FRAMES = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]


def webp(**settings) -> bytes:
    stream = io.BytesIO()
    FRAMES[0].save(stream, "WEBP", **settings)
    return stream.getvalue()


STILL, ANIMATED = (
    webp(lossless=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    webp(save_all=True, append_images=FRAMES[1:]),
)


class Unguarded(tf.Module):
    """A graph as somebody else makes it, with pictures from bytes and from examples."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def of_bytes(self, image_bytes):
        def corner(data):
            return tf.io.decode_image(data, 3, expand_animations=False)[0, 0]

        return {"corner": tf.map_fn(corner, image_bytes, fn_output_signature=tf.TensorSpec([3], tf.uint8))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, EXAMPLES)])
    def of_examples(self, inputs):
        return self.of_bytes(tf.io.parse_example(inputs, {"image": tf.io.FixedLenFeature([], tf.string)})["image"])


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory) -> SavedModelServable:
    folder = tmp_path_factory.mktemp("models") / "1"
    module = Unguarded()
    signatures = {"serving_default": module.of_bytes, "examples": module.of_examples}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return SavedModelServable("unguarded", 1, folder)


def example(data: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString()


def column(*cells: bytes) -> np.ndarray:
    return np.array([*cells, None], object)[:-1]


@pytest.mark.parametrize(("name", "key", "form"), [("", "image_bytes", bytes), ("examples", EXAMPLES, example)])
def test_animations_do_not_reach_the_decoder_of_another_graph(unguarded, name, key, form):
    signature = unguarded.signature(name)
    good = {key: column(form(STILL), form(STILL))}
    assert signature.check(good) == 2
    np.testing.assert_array_equal(signature.call(good)["corner"], [FRAMES[0].getpixel((0, 0))] * 2)
    with pytest.raises(ServingFailure, match=f"input {key}, row 1: animated image: pictures of one frame are read"):
        signature.check({key: column(form(STILL), form(ANIMATED))})


def test_graphs_without_decoders_take_any_bytes():
    facts = SimpleNamespace(dtype="string", shape=(None,), numpy_type=np.dtype(object), has_batch_axis=True)
    facts.fits = lambda shape: True
    assert LoadedSignature("echo", {"x": facts}, {"y": facts}, dict).check({"x": column(ANIMATED)}) == 1


def test_the_client_reads_the_reason_of_the_graph_alone():
    serve = tf.function(lambda data: graph.decode_batch(data, 8, 3, "stretch", 99), autograph=False)
    for data, reason in (
        (ANIMATED, "animated image: pictures of one frame are read"),
        (STILL, "image too large: 16 x 16 is more than max_pixels=99"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError) as raised:
            serve(tf.constant([data]))
        failure = _refused(raised.value)
        assert failure.code == "INVALID_ARGUMENT" and str(failure) == f"{reason} (a picture of {len(data)} bytes)"
