"""Image networks that come as SavedModels: local folders, or addresses that tensorflow-hub downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.export.selfcheck.failure import CheckFailed
from easytransfer.export.selfcheck.operators import load_needed_operators, read_saved_model
from easytransfer.presets.download import check_address
from easytransfer.presets.folder import own_file
from easytransfer.presets.weight_values import check_finite
from modelzoo.cnn.config import CnnConfig

FOLDER = "saved_model"


def resolve_handle(handle: str) -> str:
    """Returns the folder of a SavedModel, downloading it when `handle` is an address.

    Raises:
        ModelError: The address cannot be reached, or the folder holds no SavedModel, one whose operators read or write
            files or run Python, or links to other folders.
    """
    import tensorflow_hub as hub

    folder = handle
    if handle.startswith(("http://", "https://")):
        check_address(handle)
        try:
            folder = hub.resolve(handle)
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            raise ModelError(
                f"the SavedModel {handle} cannot be downloaded: {error}",
                fix="check the address and the network, or download it elsewhere and give its folder",
            ) from None
    if not Path(folder, "saved_model.pb").is_file():
        raise ModelError(f"{handle} is not a SavedModel", accepted="a folder with saved_model.pb, or a hub address")
    for path in Path(folder).rglob("*"):
        own_file(folder, str(path.relative_to(folder)))
    try:
        load_needed_operators(read_saved_model(Path(folder)))
    except CheckFailed as failure:
        raise ModelError(f"the SavedModel {handle} is not used: {failure}") from None
    return folder


def _check_weights(folder: str, handle: str) -> None:
    """Checks that the stored variables are finite; a layer knows only those that its SavedModel lists.

    Raises:
        ModelError: One is not.
    """
    if not Path(folder, "variables", "variables.index").is_file():
        return
    reader = tf.train.load_checkpoint(str(Path(folder, "variables", "variables")))
    for name, dtype in reader.get_variable_to_dtype_map().items():
        if dtype.is_floating:
            check_finite(reader.get_tensor(name), name.split("/.ATTRIBUTES")[0], handle)


def features(images: Any, config: CnnConfig) -> Any:
    """Adds a SavedModel: images to [batch, width].

    It must be callable and give one tensor, [batch, width] or [batch, height, width, channels], which is averaged, or a
    dict with `features`. Its weights train when `config.trainable` is set; it runs in float32.

    Raises:
        ModelError: The SavedModel is not found, or not of this form.
    """
    layer = SavedModelLayer(str(config.handle), trainable=config.trainable, dtype="float32", name="saved_model")
    try:
        outputs = layer(images)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        size = "[batch, {}, {}, {}]".format(*config.image_shape)
        raise ModelError(f"{config.handle} does not take images {size}: {reason}", fix="set image_size") from None
    return keras.layers.GlobalAveragePooling2D()(outputs) if outputs.shape.rank == 4 else outputs


@keras.utils.register_keras_serializable(package="easytransfer")
class SavedModelLayer(keras.layers.Layer):
    """A SavedModel as a layer, by way of tensorflow-hub.

    Args:
        handle: Folder or address.

    Raises:
        ModelError: The SavedModel is not found, cannot be called, or has weights that are not finite.
    """

    def __init__(self, handle: str, **kwargs: Any) -> None:
        import tensorflow_hub as hub

        super().__init__(**kwargs)
        self.handle = handle
        folder = resolve_handle(handle)
        try:
            self.body = hub.KerasLayer(folder, trainable=self.trainable, dtype="float32", name="body")
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise ModelError(
                f"{handle} cannot be used as a layer: {str(error).splitlines()[0]}",
                accepted="a SavedModel that can be called, such as `model.export` or `tf.saved_model.save` write",
            ) from None
        _check_weights(folder, handle)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See `features`."""
        outputs = self.body(inputs, training=bool(training) and self.trainable)
        if isinstance(outputs, dict):
            if "features" not in outputs:
                raise ModelError(f"{self.handle} gives no features", received=", ".join(sorted(outputs)))
            outputs = outputs["features"]
        if outputs.shape.rank not in (2, 4) or outputs.shape[-1] is None:
            raise ModelError(f"{self.handle} gives no vectors or feature maps", received=str(outputs.shape))
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "handle": self.handle}
