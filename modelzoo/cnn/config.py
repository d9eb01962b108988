"""Shapes of convolutional networks, by name."""

from __future__ import annotations

from easytransfer.config.schema import ConfigModel, setting
from easytransfer.errors import ConfigError


class CnnConfig(ConfigModel):
    """One residual network."""

    name: str = setting("resnet8_cifar", "Name of the network.")
    image_size: int = setting(32, "Height and width of the input.", ge=8)
    channels: int = setting(3, "Channels of the input.", ge=1)
    widths: list[int] = setting([16, 32, 64], "Channels of each stage.")


def names() -> list[str]:
    """Returns the known names."""
    return ["resnet8_cifar"]


def named(name: str) -> CnnConfig:
    """Returns the configuration of a name."""
    if name not in names():
        raise ConfigError("unknown network", received=name, accepted=names())
    return CnnConfig(name=name)
