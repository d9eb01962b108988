"""Configuration of co-training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from appzoo.image_settings import ImageJobConfig, ImageSettings, ImageTrainConfig
from easytransfer.config.schema import read_value, setting
from easytransfer.errors import EasyTransferError
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.pretrained import network_shape


class CoTrainingSettings(ImageSettings):
    """The large network, how it is divided, and how the small ones learn from each other."""

    network: str = setting("wrn16_8_cifar", "The large network that is divided.", advanced=True, modes="T")
    split: int = setting(
        2, "Small networks that take its place, S; 1 trains the large one itself.", advanced=True, modes="T", ge=1
    )
    members: list[str] = setting(
        [], "Names of the small networks, in place of network and split.", advanced=True, modes="T"
    )
    agreement: Literal["js", "kl"] = setting(
        "js",
        "js: the Jensen-Shannon divergence of the predictions; kl: the mean divergence of each from each other one.",
        advanced=True,
        modes="T",
    )
    agreement_weight: float = setting(
        0.5, "Weight of that in the loss; 0 trains the networks apart.", advanced=True, modes="T", ge=0
    )
    agreement_warmup_epochs: float = setting(
        40.0, "Epochs over which the weight rises from 0.005.", advanced=True, modes="T", ge=0
    )
    views: Literal["different", "same"] = setting(
        "different",
        "Whether each network sees the image augmented on its own, or all the same one.",
        advanced=True,
        modes="T",
    )
    ensemble: Literal["mean_logits", "mean_probabilities", "max_logits"] = setting(
        "mean_logits", "How the networks answer together.", advanced=True, modes="TEP"
    )
    weight_decay_division: Literal["none", "exp"] = setting(
        "none",
        "exp: weight decay times exp(1 / S - 1), which the paper has for CIFAR-10.",
        advanced=True,
        modes="T",
    )
    export_member: int = setting(
        0, "Number of the network that is exported alone; 0 = the ensemble.", advanced=True, modes="TX", ge=0
    )

    def networks(self) -> list[CnnConfig]:
        """Returns the small networks.

        Raises:
            ModelError: A name is unknown, or there is no rule for this division.
        """
        chosen = {"image_size": self.image_size, "channels": self.channels}
        return [network_shape(name).model_copy(update=chosen) for name in self.member_names()]

    def member_names(self) -> list[str]:
        """Returns the names of the small networks."""
        return self.members or [f"split{self.split}_{self.network}"] * self.split

    @property
    def count(self) -> int:
        """Number of small networks."""
        return len(self.members) or self.split


class CoTrainingTrainConfig(ImageTrainConfig):
    """Optimization, evaluation during training, and checkpoints; like the paper without clipping."""

    gradient_clip: bool = setting(
        False,
        "Clip gradients by their global norm; here decayed and other variables apart.",
        advanced=True,
        modes="T",
    )


class CoTrainingConfig(ImageJobConfig):
    """Divide a large convolutional network into several small ones and train these together."""

    model: CoTrainingSettings = CoTrainingSettings()
    train: CoTrainingTrainConfig = CoTrainingTrainConfig()

    @classmethod
    def started_networks(cls, model: Mapping[str, Any]) -> list[str]:
        """Returns the names of the members that were given; divided networks have no weights."""
        members = read_value(model.get("members") or [], list[str])
        return [str(name) for name in members]

    @model_validator(mode="after")
    def _check_co_training(self) -> CoTrainingConfig:
        model, workers = self.model, self.distribution.tensor_parallel
        try:
            model.networks()
        except EasyTransferError as error:
            which = f"model.members={model.members}" if model.members else f"model.split={model.split}"
            raise ValueError(f"{which}: {error}") from error
        if model.export_member > model.count:
            raise ValueError(f"model.export_member={model.export_member}: there are {model.count} networks")
        if workers not in (1, model.count):
            raise ValueError(
                f"distribution.tensor_parallel={workers} must be the number of networks, {model.count}, for one "
                "network per worker, or 1"
            )
        return self


VARIANTS = {"": CoTrainingConfig}
