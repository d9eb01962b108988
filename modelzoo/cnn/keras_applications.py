"""Networks of `tf_keras.applications`: built by the library, with the files of weights that it publishes.

The network is a copy of the library's whose names, start values and random branches repeat. A file is read by the
library's own rule, layer by layer in order, after its form was checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.image.size import size_text
from easytransfer.layers.dropout import Dropout
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.keras_builder import StochasticDepth, layer_seed, variables_by_name

# Their weights are for blue, green, red; here the first convolution is turned round instead of every image.
_BLUE_FIRST = ("resnet50", "resnet101", "resnet152", "vgg16", "vgg19")
# EfficientNet-B0 to B7: the file has deviations where the layer that normalises takes variances. The library divides
# by their roots behind that layer, in networks with its weights alone; here the first convolution does.
_DEVIATIONS = np.sqrt(np.float32([0.229, 0.224, 0.225]))
# deflate, shuffle, checksum: what h5py itself writes. Others are code that HDF5 would look for.
_FILTERS = {1, 2, 3}
_MOST_COMPRESSION = 10
# The largest networks have about 1,500 layers.
_MOST_ENTRIES = 20_000


@keras.utils.register_keras_serializable(package="easytransfer")
class StoredNormalization(keras.layers.Layer):
    """Subtracts a mean and divides by the root of a variance of each channel, both from a file: [..., channels].

    The library's Normalization keeps what its variables held when it was built, whatever they are assigned later. It
    also stores how many images it has seen, which nothing uses.
    """

    def build(self, input_shape: Any) -> None:
        """Adds the variables in the library's order."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight("mean", shape, initializer="zeros", trainable=False)
        self.variance = self.add_weight("variance", shape, initializer="ones", trainable=False)
        self.count = self.add_weight("count", (), dtype=tf.int64, initializer="zeros", trainable=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """See the class."""
        deviation = tf.maximum(tf.sqrt(self.variance), keras.backend.epsilon())
        return (inputs - tf.cast(self.mean, inputs.dtype)) / tf.cast(deviation, inputs.dtype)


def features(images: Any, config: CnnConfig, seed: int) -> Any:
    """Adds a network without its classifier: images [batch, height, width, 3] to the means [batch, width].

    Args:
        images: Symbolic tensor.
        config: Configuration of the family `keras`.
        seed: Of the start values.

    Raises:
        ModelError: The library has no such network, or the images are too small for it.
    """
    theirs = _library_network(config)
    names = _stable_names(theirs.layers)
    copy = keras.models.clone_model(
        theirs, input_tensors=images, clone_function=lambda layer: _copied(layer, names[layer.name], seed)
    )
    return copy.output


def read_published(path: Path, config: CnnConfig, network: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of a published file by the names of a network around `features`, without a classifier.

    Args:
        path: `.h5` file without classifier.
        config: Configuration of the network.
        network: The network.

    Raises:
        ModelError: The file is no plain HDF5, or its layers are not those of the network.
    """
    _check_file(path)
    theirs = _library_network(config)
    try:
        theirs.load_weights(str(path))
    except (ValueError, KeyError, OSError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{path.name} does not fit {config.application}: {reason}",
            accepted="the file of weights without classifier that Keras publishes",
        ) from None
    names, known = _stable_names(theirs.layers), {id(v): name for name, v in variables_by_name(network).items()}
    values = {}
    for layer in theirs.layers:
        if layer.weights:
            ours = network.get_layer(names[layer.name]).weights
            for mine, value in zip(ours, layer.get_weights(), strict=True):
                values[known[id(mine)]] = value
    return _with_first_convolution(values, str(config.application))


def layer_groups(network: keras.Model) -> list[list[tf.Variable]]:
    """Returns trained variables by how often the images have been halved; the classifier's, if any, come last.

    Args:
        network: A network around `features`.
    """
    groups: dict[int, list[tf.Variable]] = {}
    height, reached = network.input_shape[1], 0
    for layer in network.layers:
        shape = layer.output_shape
        # Vectors and the gates of squeeze and excitation, 1 x 1 in the middle of a network, are no halving.
        if isinstance(shape, tuple) and len(shape) == 4 and shape[1] > 1:
            reached = max(reached, round(np.log2(height / shape[1])))
        depth = reached + 1 if layer.name == "logits" else reached
        groups.setdefault(depth, []).extend(layer.trainable_variables)
    return [groups[depth] for depth in sorted(groups)]


def _library_network(config: CnnConfig) -> keras.Model:
    # Beside the functions are modules, whose names are those in small letters.
    names = [name for name in dir(keras.applications) if name.lower() == config.application and name[0].isupper()]
    make = getattr(keras.applications, names[0]) if names else None
    if make is None:
        raise ModelError(f"tf_keras.applications has no {config.application}")
    try:
        return make(include_top=False, weights=None, input_shape=config.image_shape, pooling="avg")
    except ValueError as error:
        raise ModelError(
            f"{config.application} does not work with images of {size_text(config.image_size)} pixels: {error}",
            fix="raise image_size",
        ) from None


# ResNetRS numbers its stem like a layer without a name.
_NUMBERED_STEM = re.compile(r"^stem_\d+_(?=stem_)")


def _stable_names(layers: Sequence[keras.layers.Layer]) -> dict[str, str]:
    """Returns names by the library's, which numbers nameless layers on from one network to the next."""
    found, counts = {}, dict[str, int]()
    for layer in layers:
        base = re.sub(r"_\d+$", "", layer.name)
        if base != _snake_case(type(layer).__name__) and not base.startswith("tf."):
            found[layer.name] = _NUMBERED_STEM.sub("stem_1_", layer.name)
            continue
        counts[base] = counts.get(base, 0) + 1
        found[layer.name] = f"{base}_{counts[base]}"
    return found


def _snake_case(name: str) -> str:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)).lower()


def _copied(layer: keras.layers.Layer, name: str, seed: int) -> keras.layers.Layer:
    """Returns a layer like that of the library with a name, start values and draws that repeat."""
    if isinstance(layer, keras.layers.Dropout):
        return (StochasticDepth if layer.noise_shape else Dropout)(layer.rate, name=name)
    if type(layer).__name__ == "StochasticDepth":  # of ConvNeXt
        return StochasticDepth(layer.drop_path_rate, name=name)
    if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
        return StoredNormalization(name=name)
    settings = layer.get_config()
    _set_seeds(settings, layer_seed(seed, name))
    return type(layer).from_config({**settings, "name": name})


def _set_seeds(settings: Any, seed: int) -> None:
    """Sets the seed of every initializer in the configuration of a layer, or of the layers inside it."""
    if isinstance(settings, dict):
        if settings.get("seed", 0) is None:
            settings["seed"] = seed
        # Layers inside of one, such as the stem of ConvNeXt, have other names.
        seed = layer_seed(seed, str(settings["name"])) if "name" in settings else seed
    for part in settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ():
        _set_seeds(part, seed)


def _with_first_convolution(values: dict[str, np.ndarray], application: str) -> dict[str, np.ndarray]:
    """Returns the weights with the first convolution made for images as all networks here get them."""
    change = None
    if application in _BLUE_FIRST:
        change = lambda kernel: kernel[:, :, ::-1]  # noqa: E731
    elif re.fullmatch(r"efficientnetb\d", application):
        change = lambda kernel: kernel / _DEVIATIONS[:, None]  # noqa: E731
    if change is None:
        return values
    name = next(name for name, value in values.items() if value.ndim == 4)
    return {**values, name: np.ascontiguousarray(change(values[name]))}


def _check_file(path: Path) -> None:
    """Checks that a file holds groups and plain numbers, no more of them than its size allows, and leads nowhere else.

    Raises:
        ModelError: It does not.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            problem = _problem(file, _MOST_COMPRESSION * path.stat().st_size)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{path.name} is no readable HDF5 file: {error}", fix="fetch it again") from None
    if problem:
        raise ModelError(f"{path.name} is not read: {problem}", accepted="a file of weights as Keras writes them")


def _problem(file: Any, room: int) -> str | None:
    """Returns what forbids to read an open HDF5 file, None where nothing does.

    Args:
        file: Of h5py.
        room: Bytes that its numbers may have.
    """
    import h5py

    groups, count = [file], 0
    while groups:
        group = groups.pop()
        for name in group:
            count += 1
            if count > _MOST_ENTRIES:
                return f"it has more than {_MOST_ENTRIES} entries"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"{name} is a link to another place"
            entry = group[name]
            if isinstance(entry, h5py.Group):
                groups.append(entry)
                continue
            if problem := _dataset_problem(entry):
                return f"{name} {problem}"
            room -= entry.nbytes
            if room < 0:
                return f"its numbers would take more than {_MOST_COMPRESSION} times its size"
    return None


def _dataset_problem(entry: Any) -> str | None:
    import h5py

    if not isinstance(entry, h5py.Dataset) or entry.dtype.kind not in "fiu":
        return "holds no numbers"
    if entry.is_virtual or entry.external:
        return "has its numbers in other files"
    settings = entry.id.get_create_plist()
    if not {settings.get_filter(i)[0] for i in range(settings.get_nfilters())} <= _FILTERS:
        return "is compressed in a form of its own"
    return None
