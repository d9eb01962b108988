"""The run of another network, which a run learns from or starts with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appzoo.discovery import find_application
from appzoo.image_app import NETWORK_FILE, ImageApp, stored_network
from appzoo.image_settings import ImageJobConfig, ImageSettings
from easytransfer.app.frozen import Frozen, resolved
from easytransfer.data.labels import LabelMap
from easytransfer.errors import ModelError
from easytransfer.image.size import size_text
from easytransfer.run.folder import CONFIG_FILE
from modelzoo.cnn.config import CnnConfig


def open_source(path: str | Path, role: str, labels: Sequence[str], images: ImageSettings) -> Frozen:
    """Opens the run of another network, which takes this run's images and gives its classes.

    Args:
        path: Run folder or checkpoint of an application on single images.
        role: What messages call it.
        labels: Class names of this run.
        images: Form of this run's images.

    Raises:
        ModelError: No such network is there, or its images, classes or weights are others.
    """
    found = resolved(path, role)
    config = source_network(found.parent, f"the {role}", labels, images)
    if (found.parent / CONFIG_FILE).is_file():
        return Frozen.open(found, find_application, role)
    # Trained from Python, without a job: the files of the network say all.
    form = {"image_size": config.image_size, "channels": config.channels}
    return Frozen.of_run(ImageApp(ImageJobConfig(model=form)), found, role)


def source_network(folder: Path, what: str, labels: Sequence[str], images: ImageSettings) -> CnnConfig:
    """Returns the shape of the network in a run folder, which takes this run's images and gives its classes.

    Args:
        folder: Run folder of an application on single images.
        what: What messages call it.
        labels: Class names of this run.
        images: Form of this run's images.

    Raises:
        ModelError: No such network is there, or its images or classes are others.
    """
    if not (folder / NETWORK_FILE).is_file():
        raise ModelError(
            f"{what} {folder} has no {NETWORK_FILE}", accepted="the run folder of an application on single images"
        )
    config = stored_network(folder)
    theirs, ours = (list(c.image_shape) for c in (config, images))
    if theirs != ours:
        raise ModelError(
            f"{what} {folder} takes images {theirs}, and this run has {ours}",
            fix=f"set model.image_size={size_text(config.image_size)} model.channels={config.channels}, "
            "or take another one",
        )
    names = LabelMap.load(folder)
    if names is None:
        raise ModelError(f"{what} {folder} gives a number, no classes", accepted="one with the same labels")
    if names.names != list(labels):
        raise ModelError(
            f"{what} {folder} has other labels, or in another order",
            received=names.describe(),
            accepted=LabelMap(list(labels)).describe(),
            fix="list them as it has them in label_enumerate_values, or take another one",
        )
    return config
