"""Networks of tf_keras.applications against the library itself, which is given the same file of weights."""

import hashlib
import json
import sys

import h5py
import numpy as np
import pytest
from local_server import local_server

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import catalogue
from modelzoo import commands
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.keras_builder import StochasticDepth
from modelzoo.cnn.names import named
from modelzoo.cnn.pretrained import input_form, start_network

MODELS = {name: facts for name, facts in catalogue.entries().items() if facts["origin"].get("layout") == "keras"}
CLASSES = {name.lower(): name for name in dir(keras.applications) if callable(getattr(keras.applications, name))}
# One of every module of the library, the smallest; the first two at every commit.
FAST = ["mobilenetv3small", "vgg16"]
SLOW = ["convnexttiny", "densenet121", "efficientnetb0", "efficientnetv2b0", "inceptionresnetv2", "inceptionv3"]
SLOW += [
    "mobilenet",
    "mobilenetv2",
    "nasnetmobile",
    "regnetx002",
    "regnety002",
    "resnet50",
    "resnet50v2",
    "resnetrs50",
    "xception",
]


def library(application, monkeypatch, file, size):
    """Returns the library's network as it is for `weights="imagenet"`, with another file than it would download."""
    asked = []

    def get_file(fname, origin, file_hash=None, **settings):
        asked.append((origin, file_hash))
        return str(file)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["tf_keras.src.utils.data_utils"], "get_file", get_file)
        make = getattr(keras.applications, CLASSES[application])
        network = make(include_top=False, weights="imagenet", input_shape=(size, size, 3), pooling="avg")
    return network, asked[0]


def published(application, path, size, seed=0):
    """Writes a file as Keras publishes them, with drawn weights, statistics of batches among them."""
    network = getattr(keras.applications, CLASSES[application])(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    generator = np.random.default_rng(seed)
    for layer in network.layers:
        values = []
        for variable in layer.weights:
            part, value = variable.name.split(":")[0].rpartition("/")[2], variable.numpy()
            if part in ("gamma", "moving_variance", "variance"):
                value = generator.uniform(0.5, 1.5, value.shape)
            elif value.dtype.kind == "f" and value.ndim < 2:
                value = generator.normal(0, 0.1, value.shape)
            values.append(value)
        layer.set_weights(values)
    network.save_weights(str(path))
    return hashlib.md5(path.read_bytes()).hexdigest()


def theirs(application, network, pixels):
    module = sys.modules[getattr(keras.applications, CLASSES[application]).__module__]
    return network(module.preprocess_input(pixels.astype(np.float32)), training=False).numpy()


def ours(network, name, pixels):
    """Returns features of images as applications give them to a network."""
    form = input_form(name)
    images = pixels.astype(np.float32) / 255
    return network((images - np.float32(form["channel_mean"])) / np.float32(form["channel_std"]))["features"].numpy()


@pytest.fixture
def serve(tmp_path):
    """A server of one file that answers ranges; it breaks off after `cut` bytes of a whole answer."""
    state = {"cut": None, "asked": []}

    def get(handler):
        content, wanted = state["file"].read_bytes(), handler.headers.get("Range")
        state["asked"].append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        handler.wfile.write(content[start : None if wanted else state["cut"]])

    with local_server(get) as address:
        state["address"] = address
        yield state


@pytest.mark.parametrize("application", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_fetched_weights_are_those_of_the_library(application, tmp_path, monkeypatch, serve):
    """Download, checksum, conversion; features, with pixels scaled by the library's own function, within 1e-4."""
    # Published weights of NASNet are for one size, and MobileNetV2 has others for small images.
    size = 224 if application in ("nasnetmobile", "mobilenetv2") else 96
    name, zoo = f"keras-{application}", tmp_path / "zoo"
    serve["file"] = tmp_path / "weights.h5"
    digest = published(application, serve["file"], size)
    expected, (address, checksum) = library(application, monkeypatch, serve["file"], size)
    origin = MODELS[name]["origin"]
    assert (origin["urls"], origin["checksum"]) == ([address], checksum)
    assert MODELS[name]["parameters"] in (None, expected.count_params())  # None: not counted yet
    result = commands.fetch(name, zoo, f"{serve['address']}/w.h5", digest, offline=False)
    manifest = json.loads((zoo / "cnn" / name / "zoo.json").read_text())
    assert result["checksum_known"] and manifest["input"] == input_form(name)
    assert commands.show(name, zoo)["parameters"] == expected.count_params() == manifest["parameters"]
    network = start_network(
        name, named(f"keras_{application}").replace(image_size=size), 5, 0, weights="pretrained", zoo=zoo
    )
    pixels = np.random.default_rng(1).integers(0, 256, [2, size, size, 3])
    features = theirs(application, expected, pixels)
    np.testing.assert_allclose(ours(network, name, pixels), features, rtol=1e-4, atol=1e-4 * np.abs(features).max())
    # Random branches that do not repeat would break resumed runs.
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in network.network.layers)
    rates = [x.rate for x in expected.layers if isinstance(x, keras.layers.Dropout)]
    rates += [x.drop_path_rate for x in expected.layers if type(x).__name__ == "StochasticDepth"]
    np.testing.assert_allclose([x.rate for x in network.network.layers if isinstance(x, StochasticDepth)], rates)
    groups = network.layer_groups()
    trained = [id(variable) for group in groups for variable in group]
    assert sorted(trained) == sorted(id(variable) for variable in network.network.trainable_variables)
    assert len([group for group in groups if group]) >= 5 and len(groups[-1]) == 2


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "weights.h5"
    return path, published("mobilenet", path, 64)


def test_downloads_that_break_or_differ(small, serve, tmp_path):
    """Wrong bytes are refused and deleted; the rest of a broken download is asked for alone."""
    serve["file"], digest = small
    url, zoo = f"{serve['address']}/w.h5", tmp_path / "zoo"
    with pytest.raises(ModelError, match="arrived with another checksum.*deleted"):
        commands.fetch("keras-vgg16", zoo, url, offline=False)  # the file is not the one that Keras has recorded
    assert not (zoo / "cnn").exists() and not list((zoo / ".downloads").iterdir())
    serve["cut"] = 1000
    with pytest.raises(ModelError, match="same command again to continue"):
        commands.fetch("keras-mobilenet", zoo, url, digest, offline=False)
    result = commands.fetch("keras-mobilenet", zoo, url, digest, offline=False)
    assert serve["asked"] == [None, None, "bytes=1000-"] and result["sha256"]
    assert not list((zoo / ".downloads").iterdir())


def test_a_file_of_another_network_is_refused(small, serve, tmp_path):
    serve["file"], digest = small
    with pytest.raises(ModelError, match="does not fit mobilenetv3small: .*layers.*without classifier"):
        commands.fetch("keras-mobilenetv3small", tmp_path, f"{serve['address']}/w.h5", digest, offline=False)
    assert not (tmp_path / "cnn").exists()


def _linked(file):
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/")


def _soft(file):
    file["again"] = h5py.SoftLink("/conv1")


def _external(file):
    file.create_dataset("secret", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def _virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("view", layout)


def _objects(file):
    file.create_dataset("texts", data=["a"], dtype=h5py.string_dtype())


def _bomb(file):
    file.create_dataset("zeros", (1 << 32,), "f4", chunks=(1 << 20,), compression="gzip")


def _circle(file):
    file["conv1/again"] = file["conv1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_linked, "elsewhere is a link to another place"),
        (_soft, "again is a link to another place"),
        (_external, "secret has its numbers in other files"),
        (_virtual, "view has its numbers in other files"),
        (_objects, "texts holds no numbers"),
        (_bomb, "more than 10 times its size"),
        (_circle, "more than 20000 entries|more than 10 times its size"),
    ],
)
def test_files_that_are_more_than_numbers_are_not_read(small, serve, tmp_path, change, reason):
    serve["file"] = tmp_path / "w.h5"
    serve["file"].write_bytes(small[0].read_bytes())
    with h5py.File(serve["file"], "a") as file:
        change(file)
    digest = hashlib.sha256(serve["file"].read_bytes()).hexdigest()
    with pytest.raises(ModelError, match=reason):
        commands.fetch("keras-mobilenet", tmp_path / "zoo", f"{serve['address']}/w.h5", digest, offline=False)


def test_a_text_is_no_file_of_weights(serve, tmp_path):
    serve["file"] = tmp_path / "w.h5"
    serve["file"].write_text("<html>")
    digest = hashlib.sha256(b"<html>").hexdigest()
    with pytest.raises(ModelError, match="no readable HDF5 file"):
        commands.fetch("keras-mobilenet", tmp_path / "zoo", f"{serve['address']}/w.h5", digest, offline=False)


def test_the_list_has_every_network_of_the_library():
    assert {facts["network"].removeprefix("keras_") for facts in MODELS.values()} == set(CLASSES)
    unchecked = {name for name, facts in MODELS.items() if not facts["origin"]["checksum"]}
    assert unchecked == {"keras-mobilenet", "keras-mobilenetv2"}
    note = commands.show("keras-mobilenet")["get_note"]
    assert "records no checksum" in note and commands.show("keras-vgg16")["get_note"] is None


def test_start_values_repeat():
    """Two networks in one process, whose layers the library numbers differently, are one network."""
    config = named("keras_mobilenetv3small").replace(image_size=32)
    first, second, other = (CnnBackbone(config, 3, seed) for seed in (1, 1, 2))
    values = [network.export_weights() for network in (first, second, other)]
    assert all((values[0][name] == value).all() for name, value in values[1].items())
    assert any((values[0][name] != value).any() for name, value in values[2].items())


def test_what_networks_of_keras_refuse():
    with pytest.raises(ModelError, match="xception does not work with images of 32 pixels: .*raise image_size"):
        CnnBackbone(named("keras_xception").replace(image_size=32))
    with pytest.raises(ConfigError, match="channels=1"):
        named("keras_vgg16").replace(channels=1)
    with pytest.raises(ConfigError, match="application belongs to the family keras"):
        named("resnet8_cifar").replace(application="vgg16")
    with pytest.raises(ModelError, match="family keras give no feature maps"):
        CnnBackbone(named("keras_vgg16").replace(image_size=32)).feature_maps(np.zeros([1, 32, 32, 3], np.float32))
    with pytest.raises(ModelError, match="unknown image network keras_vgg17"):
        named("keras_vgg17")
