"""A convolutional network with its configuration: a classifier, or the body alone with its feature maps."""

from __future__ import annotations

import math
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import Preset
from easytransfer.presets.folder import write_json
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.safetensors_file import WEIGHTS, write_safetensors
from modelzoo.backbone import Backbone
from modelzoo.cnn import keras_applications, networks, saved_model
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.keras_builder import KerasBuilder, variables_by_name
from modelzoo.cnn.layouts import stored_weights
from modelzoo.cnn.timm import stored_config

# A name may say 9,999 weighted layers (`names.MOST_DIGITS`), with at most four layers of Keras for each.
_MOST_CALLS = 50_000
_one_at_a_time = threading.RLock()


@keras.utils.register_keras_serializable(package="easytransfer")
class CnnBackbone(Backbone):
    """Convolutional network of any family of `CnnConfig`.

    Args:
        config: Configuration, or its fields.
        classes: Number of classes; None leaves the classifier out, and images may have any height and width.
        seed: Seed of the start values.

    Call arguments:
        images: float32 [batch, height, width, channels], already normalised.
        training: Whether dropout acts and batch normalisation uses the batch.

    Returns:
        `features` [batch, width] and, with a classifier, `logits` [batch, classes], both float32.

    Raises:
        ModelError: The images are too small for the network, or a SavedModel cannot be used.

    Example:
        >>> CnnBackbone(named("resnet8_cifar"), classes=10)(tf.zeros([2, 32, 32, 3]))["logits"].shape
        TensorShape([2, 10])
        >>> body = CnnBackbone(named("resnet18_imagenet").replace(output_stride=8))
        >>> {stride: x.shape for stride, x in body.feature_maps(tf.zeros([2, 64, 96, 3])).items()}
        {4: TensorShape([2, 16, 24, 64]), 8: TensorShape([2, 8, 12, 512])}
    """

    def __init__(
        self, config: CnnConfig | Mapping[str, Any], classes: int | None = None, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(config, Mapping):
            config = CnnConfig.from_dict(dict(config))
        if classes is not None and classes < 1:
            raise ConfigError("a classifier needs at least one class", received=classes)
        self.config, self.classes, self.seed = config, classes, seed
        # Only stages of feature maps do not depend on the size: an average stands behind them, and no dense layer.
        free = classes is None and config.stage_strides()
        self._image_shape = (None, None, config.channels) if free else config.image_shape
        # How many of the stages that a stored network has are here; None: all.
        self._stages: int | None = None
        with _deep_recursion():
            self.network = _network(config, classes, seed, self._image_shape)
        self.built = True

    def call(self, images: tf.Tensor, training: bool | None = False) -> dict[str, tf.Tensor]:
        """See the class."""
        outputs = self.network(self._checked(images), training=training)
        return {name: outputs[name] for name in ("features", "logits") if name in outputs}

    def feature_maps(self, images: tf.Tensor, training: bool | None = False) -> dict[int, tf.Tensor]:
        """Returns the features of a body by how much they are reduced, the deepest where several are alike.

        `output_stride` of the configuration bounds the reduction: stages that would exceed it are dilated, with the
        same weights. A height or width that is no multiple of a stride is rounded up, by the pools of a DenseNet or VGG
        down. Between the stages of a pre-activation network the features are sums that were not activated yet.

        Args:
            images: float32 [batch, height, width, channels], already normalised, of any height and width.
            training: Whether dropout acts and batch normalisation uses the batch.

        Returns:
            {stride: [batch, height / stride, width / stride, channels]}, in the type that the network computes in.

        Raises:
            ModelError: The network has a classifier, or no stages of feature maps.
        """
        if self.classes is not None:
            raise ModelError(
                "a classifier gives no feature maps",
                fix="build the body alone: `CnnBackbone(config)`, or `from_preset(folder, classifier=False)`",
            )
        if not self.config.stage_strides():
            raise ModelError(f"networks of the family {self.config.family} give no feature maps")
        outputs = self.network(self._checked(images), training=training)
        return {stride: outputs[_map_name(stride)] for stride in dict.fromkeys(self.config.stage_strides())}

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        images = tf.convert_to_tensor(images)
        if not tf.TensorShape([None, *self._image_shape]).is_compatible_with(images.shape) or images.shape.rank is None:
            sides = ", ".join("any" if side is None else str(side) for side in self._image_shape)
            raise ModelError(
                "images of another shape than the network's",
                received=str(images.shape),
                accepted=f"[batch, {sides}]",
                fix="set image_size and channels of the network",
            )
        return images

    def example_outputs(self) -> np.ndarray:
        """Returns features of two fixed images, to compare models and to see whether a file is damaged."""
        shape = [2, *self.config.image_shape]
        values = np.linspace(-1, 1, math.prod(shape), dtype=np.float32)
        return self(values.reshape(shape))["features"].numpy()

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trained variables by depth: the first layers, each stage, what follows the last stage.

        Networks without stages have the first and the last group only: a SavedModel is in the first, dense layers on
        pixels in the last. Those of Keras have a group for each size of their features, and one for the classifier.
        """
        if self.config.family == "keras":
            return keras_applications.layer_groups(self.network)
        stages = len(self.config.blocks)
        groups: list[list[tf.Variable]] = [[] for _ in range(stages + 2)]
        trained = {id(variable) for variable in self.network.trainable_variables}
        for name, variable in self.named_variables().items():
            if id(variable) in trained:
                foreign = self.config.family == "saved_model" and not name.startswith("logits/")
                groups[0 if foreign else _depth(name, stages)].append(variable)
        return groups

    # Weights -----------------------------------------------------------------------------------------------

    def named_variables(self) -> dict[str, tf.Variable]:
        """Returns all variables by the names they are stored under, such as `stage1_block1_conv1/kernel`."""
        return variables_by_name(self.network)

    def weight_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns shapes and types of all variables by name."""
        return {name: tf.TensorSpec(v.shape, v.dtype) for name, v in self.named_variables().items()}

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by name."""
        return {name: variable.numpy() for name, variable in self.named_variables().items()}

    def assign_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the weights of these names."""
        variables = self.named_variables()
        for name, value in values.items():
            variables[name].assign(value)

    def is_left_out(self, name: str) -> bool:
        """Returns whether a weight belongs to the classifier or the stages that this body was built without."""
        stage = re.match(r"stage(\d+)_", name)
        behind = self._stages is not None and stage is not None and int(stage[1]) > self._stages
        return behind or (self.classes is None and name.startswith("logits/"))

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        seed: int,
        fresh: bool,
        classes: int | None = None,
        classifier: bool | None = None,
        stages: int | None = None,
        **changes: Any,
    ) -> CnnBackbone:
        """Builds the network that a folder describes; all weights have start values, whether others follow or not.

        Args:
            folder: Model folder.
            seed: Seed of random weights.
            fresh: Whether the weights stay random.
            classes: Number of classes; those of the folder when None. Another number needs a new classifier, which must
                be allowed: `allow_missing="^logits/"`.
            classifier: False for the body alone; as the folder has it when None.
            stages: Leave out the stages behind the first so many.
            **changes: Changed configuration values, such as `dropout`, `output_stride` or `strides`.

        Raises:
            ModelError: The configuration is not valid, or does not say the number of classes.
            ConfigError: A change is not accepted.
        """
        config, stored = CnnConfig.from_folder(folder).replace(**changes), stored_config(folder)
        if classifier is False and classes is not None:
            raise ConfigError("a body without a classifier has no classes", received=classes, fix="give one of both")
        body = classifier is False or (classifier is None and classes is None and _is_body(stored))
        found = None if body else stored.get("classes") if classes is None else classes
        if not body and not isinstance(found, int):
            raise ModelError(f"{folder}/config.json does not say the number of classes", fix="give classes")
        backbone = cls(config if stages is None else config.first_stages(stages), found, seed)
        backbone._stages = stages
        return backbone

    def read_weights(self, preset: Preset) -> tuple[dict[str, np.ndarray], LoadReport]:
        """Returns the weights of a folder by name, and the report."""
        values = stored_weights(preset.folder)
        return values, self.matched(values, str(preset.folder))

    def write_files(self, folder: Path, tokenizer: Any) -> None:
        """Writes config.json and model.safetensors; a SavedModel is copied beside them."""
        if tokenizer is not None:
            raise ModelError("an image network has no tokenizer", fix="leave it out")
        data = {**self.config.to_dict(), "classes": self.classes}
        if self.config.handle is not None:
            shutil.copytree(saved_model.resolve_handle(self.config.handle), folder / saved_model.FOLDER)
            data["handle"] = saved_model.FOLDER
        write_json(folder / "config.json", data)
        write_safetensors(folder / WEIGHTS, self.export_weights())

    def facts(self) -> dict[str, Any]:
        """Returns the type and the size."""
        return {"type": "cnn", "layers": len(self.network.layers), "parameters": self.count_params()}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"config": self.config.to_dict(), "classes": self.classes, "seed": self.seed, "name": self.name}


BACKBONE_CLASS = CnnBackbone


def _is_body(stored: Mapping[str, Any]) -> bool:
    """Whether a config.json says that there is no classifier; one that is silent does not."""
    return "classes" in stored and stored["classes"] is None


def _network(
    config: CnnConfig, classes: int | None, seed: int, shape: tuple[int | None, int | None, int]
) -> keras.Model:
    """Returns the functional model."""
    images = keras.Input(shape, dtype="float32", name="images")
    b = KerasBuilder(config, seed)
    if config.family == "saved_model":
        body = networks.Body([], saved_model.features(images, config))
    elif config.family == "keras":
        body = networks.Body([], keras_applications.features(images, config, seed))
    else:
        body = networks.body(b, images, config)
    if classes is None:
        # Of equal strides the deepest stays.
        outputs = {_map_name(s): x for s, x in zip(config.stage_strides(), body.stages, strict=True)}
    else:
        outputs = {"logits": networks.head(b, body.vector, config, classes)}
    outputs["features"] = keras.layers.Activation("linear", dtype="float32")(body.vector)
    return keras.Model(images, outputs, name="network")


def _map_name(stride: int) -> str:
    return f"stride{stride}"


def _depth(name: str, stages: int) -> int:
    """Returns the group of a variable, from 0."""
    if match := re.match(r"(?:stage|transition)(\d+)_", name):
        # A transition of a DenseNet leads to the next stage.
        return int(match[1]) + (name[0] == "t")
    return stages + 1 if re.match(r"(final|head|logits|dense)", name) else 0


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Has Python allow calls as deep as the deepest network; networks are built one at a time.

    Keras goes through a functional model by recursion: one call for every layer on its longest path.
    """
    with _one_at_a_time:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, _MOST_CALLS))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)
