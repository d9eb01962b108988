"""What applications with a network of their own around a backbone share: where its start values come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from easytransfer.config.job import ModelConfig
from easytransfer.config.schema import setting
from easytransfer.presets import resolve
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.pretrained import is_model, looks_like_path, network_shape


class BackboneSettings(ModelConfig):
    """The backbone of a network and its start values; a subclass has the field `network`."""

    weights: Literal["pretrained", "random"] = setting(
        "random",
        "Start values of the backbone: pretrained takes those of the model that network names, the default for one of "
        "the ModelZoo or a folder.",
        advanced=True,
        modes="T",
    )
    backbone_path: str | None = setting(
        None,
        "Folder or ModelZoo name of the network with its weights, in place of model.network with weights=pretrained.",
        advanced=True,
        modes="T",
        path="one",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_weights(cls, data: Any) -> Any:
        """Fills in that a model of the ModelZoo or a folder brings its weights."""
        if isinstance(data, Mapping) and data.get("weights") is None and is_model(str(data.get("network") or "-")):
            return {**data, "weights": "pretrained"}
        return data


def stated_shape(settings: Any, tiny: str, zoo: str | None = None) -> CnnConfig | None:
    """Returns the shape of the backbone that settings name; None for the tiny one, which has none.

    Args:
        settings: `BackboneSettings` with the field `network`.
        tiny: Name of the tiny network.
        zoo: Root of the ModelZoo.
    """
    if settings.backbone_path is not None:
        return CnnConfig.from_folder(resolve(settings.backbone_path, zoo).folder)
    return None if settings.network == tiny else network_shape(settings.network, zoo)


def shape_to_check(network: str) -> CnnConfig | None:
    """Returns the shape of a network; None for a folder that a run started with and that is gone.

    Raises:
        ModelError: The name is unknown.
    """
    gone = looks_like_path(network) and not Path(network).exists()
    return None if gone else network_shape(network)
