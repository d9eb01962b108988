"""An image classifier with its configuration: fresh or pre-trained weights, saved and loaded strictly by name."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import Preset, resolve
from easytransfer.presets.folder import new_folder, read_json, write_json, write_manifest
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.safetensors_file import WEIGHTS, read_safetensors_folder, write_safetensors
from easytransfer.presets.weight_values import as_floats, check_type
from easytransfer.run.log import warn
from modelzoo.cnn import library, plan, saved_model
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.deep import deep_recursion
from modelzoo.cnn.keras_builder import KerasBuilder

log = logging.getLogger(__name__)


@keras.utils.register_keras_serializable(package="easytransfer")
class CnnBackbone(keras.Model):
    """Image classifier of any family of `CnnConfig`.

    Args:
        config: Configuration, or its fields.
        classes: Number of classes.
        seed: Seed of the start values.

    Call arguments:
        images: float32 [batch, height, width, channels], already normalised.
        training: Whether dropout acts and batch normalisation uses the batch.

    Returns:
        `features` [batch, width] and `logits` [batch, classes], both float32.

    Raises:
        ModelError: The images are too small for the network, or a SavedModel cannot be used.

    Example:
        >>> CnnBackbone(named("resnet8_cifar"), classes=10)(tf.zeros([2, 32, 32, 3]))["logits"].shape
        TensorShape([2, 10])
    """

    def __init__(self, config: CnnConfig | Mapping[str, Any], classes: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(config, Mapping):
            config = CnnConfig.from_dict(dict(config))
        if classes < 1:
            raise ConfigError("a classifier needs at least one class", received=classes)
        self.config, self.classes, self.seed = config, classes, seed
        self.load_report: LoadReport | None = None
        with deep_recursion():
            self.network = _network(config, classes, seed)
        self.built = True

    def call(self, images: tf.Tensor, training: bool | None = False) -> dict[str, tf.Tensor]:
        """See the class."""
        images = tf.convert_to_tensor(images)
        shape = self.config.image_shape
        if images.shape.rank != 4 or images.shape[1:] != shape:
            raise ModelError(
                "images of another shape than the network's",
                received=str(images.shape),
                accepted="[batch, {}, {}, {}]".format(*shape),
                fix="set image_size and channels of the network",
            )
        return self.network(images, training=training)

    def example_outputs(self) -> np.ndarray:
        """Returns features of two fixed images, to compare models and to see whether a file is damaged."""
        shape = [2, *self.config.image_shape]
        values = np.linspace(-1, 1, math.prod(shape), dtype=np.float32)
        return self(values.reshape(shape))["features"].numpy()

    # Weights -----------------------------------------------------------------------------------------------

    def named_variables(self) -> dict[str, tf.Variable]:
        """Returns all variables by the names they are stored under, such as `stage1_block1_conv1/kernel`."""
        found: dict[str, tf.Variable] = {}
        for variable in self.network.variables:
            name = variable.name.split(":")[0]
            if name in found:
                # Layers of a foreign SavedModel may share a name; their order is fixed.
                name = f"{name}#{sum(key.split('#')[0] == name for key in found)}"
            found[name] = variable
        return found

    def export_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by name."""
        return {name: variable.numpy() for name, variable in self.named_variables().items()}

    def import_weights(self, values: Mapping[str, np.ndarray], source: str, allow_missing: str | None = None) -> None:
        """Sets all weights.

        Args:
            values: Arrays by name.
            source: Where they are from, for messages.
            allow_missing: Regular expression of weight names that may keep their start values.

        Raises:
            ModelError: A weight is missing, has another shape, or is not made of finite floating-point numbers.
        """
        report, variables = LoadReport(source), self.named_variables()
        for name, variable in variables.items():
            shape = tuple(variable.shape)
            if name not in values:
                report.missing.append(name)
                continue
            if variable.dtype.is_floating:
                check_type(values[name], name, source)
            if values[name].shape != shape:
                report.mismatched.append((name, name, shape, values[name].shape))
            else:
                report.matched.append((name, name, shape))
        report.unexpected = [name for name in values if name not in variables]
        self.load_report = report
        log.info("%s", report.summary())
        report.check(allow_missing)
        if report.allowed:
            warn(f"random start values for: {', '.join(report.allowed)}")
        if report.unexpected:
            warn(f"{source}: {len(report.unexpected)} weights are not used, the first is {report.unexpected[0]}")
        for name, _, _ in report.matched:
            value, dtype = values[name], variables[name].dtype
            if dtype.is_floating:
                value = as_floats(value, name, source, dtype.as_numpy_dtype)
            variables[name].assign(value)

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        *,
        zoo: str | Path | None = None,
        classes: int | None = None,
        weights: bool = True,
        seed: int = 0,
        allow_missing: str | None = None,
        tensor: Any = None,
        stage: Any = None,
        **overrides: Any,
    ) -> CnnBackbone:
        """Builds the network of a zoo name or folder and loads its weights strictly.

        Args:
            name_or_path: Zoo name or folder.
            zoo: Root of the ModelZoo.
            classes: Number of classes; those of the folder when None. Another number needs a new classifier, which
                must be allowed: `allow_missing="^logits/"`.
            weights: False for random weights of the same architecture.
            seed: Seed of random weights.
            allow_missing: Regular expression of weight names that may start from random values.
            tensor: Not for image networks.
            stage: Not for image networks.
            **overrides: Changed configuration values, such as `dropout`.

        Raises:
            ModelError: The model is not found, or its weights do not fit.
            ConfigError: An override is not accepted, or the network should be split over workers.
        """
        if tensor is not None or stage is not None:
            raise ConfigError("image networks cannot be split over workers", fix="use data-parallel workers only")
        preset = name_or_path if isinstance(name_or_path, Preset) else resolve(name_or_path, zoo)
        config = CnnConfig.from_folder(preset.folder).replace(**overrides)
        stored = read_json(preset.folder / "config.json").get("classes")
        if classes is None and not isinstance(stored, int):
            raise ModelError(f"{preset.folder}/config.json does not say the number of classes", fix="give classes")
        backbone = cls(config, classes or stored, seed)
        if weights:
            backbone.import_weights(read_safetensors_folder(preset.folder), str(preset.folder), allow_missing)
        return backbone

    def save_to_preset(
        self,
        folder: str | Path,
        tokenizer: None = None,
        *,
        facts: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes config.json, model.safetensors and the manifest zoo.json; a SavedModel is copied beside them.

        Args:
            folder: New folder.
            tokenizer: Not for image networks.
            facts: Entries of the manifest, such as licence and origin.
            overwrite: Replace an existing folder.
        """
        data = {**self.config.to_dict(), "classes": self.classes}
        with new_folder(folder, overwrite) as draft:
            if self.config.handle is not None:
                shutil.copytree(saved_model.resolve_handle(self.config.handle), draft / saved_model.FOLDER)
                data["handle"] = saved_model.FOLDER
            write_json(draft / "config.json", data)
            write_safetensors(draft / WEIGHTS, self.export_weights())
            sizes = {"layers": len(self.network.layers), "parameters": self.count_params()}
            write_manifest(draft, {"type": "cnn", **sizes, **(facts or {})})

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"config": self.config.to_dict(), "classes": self.classes, "seed": self.seed, "name": self.name}


BACKBONE_CLASS = CnnBackbone


def _network(config: CnnConfig, classes: int, seed: int) -> keras.Model:
    """Returns the functional model."""
    images = keras.Input(config.image_shape, dtype="float32", name="images")
    b = KerasBuilder(config, seed)
    if config.family == "saved_model":
        vector = saved_model.features(images, config)
    elif library.offers(config):
        vector = library.features(b, images, config)
    else:
        vector = plan.features(b, images, config)
    logits = plan.head(b, vector, config, classes)
    features = keras.layers.Activation("linear", dtype="float32")(vector)
    return keras.Model(images, {"features": features, "logits": logits}, name="network")
