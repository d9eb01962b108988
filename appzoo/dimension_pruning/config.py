"""Configuration of pruning in depth, width and resolution."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.image_settings import ImageJobConfig, ImageSettings
from easytransfer.config.schema import setting


class PruningSettings(ImageSettings):
    """The network to prune, the budget, and how the predictor's samples are made."""

    network: str = setting(
        "prunable_resnet20_w8_cifar", "Network to train and prune; base_path has its own.", advanced=True, modes="T"
    )
    base_path: str | None = setting(
        None,
        "Run folder of the trained image network to prune; without it one is trained first.",
        modes="T",
        path="one",
    )
    base_epochs: float = setting(
        10.0, "Epochs of training before pruning, without base_path.", advanced=True, modes="T", gt=0
    )
    budget: float = setting(0.5, "Share of the multiply-accumulates that is left.", modes="T", gt=0, lt=1)
    dimensions: list[Literal["depth", "width", "resolution"]] = setting(
        ["depth", "width", "resolution"],
        "Which dimensions are cut; a single one is cut without samples.",
        advanced=True,
        modes="T",
        min_length=1,
    )
    depth_samples: int = setting(
        6, "Depths that are tried, evenly up to one block per stage.", advanced=True, modes="T", ge=1
    )
    width_levels: list[float] = setting(
        [0.81, 0.66, 0.5, 0.375], "Shares of the filters that are tried, falling.", advanced=True, modes="T"
    )
    resolution_levels: list[float] = setting(
        [0.875, 0.75, 0.625, 0.5], "Shares of the image side that are tried, falling.", advanced=True, modes="T"
    )
    sample_epochs: float = setting(1.0, "Epochs of fine-tuning of each sample.", advanced=True, modes="T", gt=0)
    sample_learning_rate: float = setting(
        1e-3, "Peak learning rate of that fine-tuning.", advanced=True, modes="T", gt=0
    )
    select_share: float = setting(
        0.05, "Share of the training rows that samples are compared on.", advanced=True, modes="T", gt=0, lt=1
    )
    calibration_rows: int = setting(
        1000, "Training rows on which the loss of each block is measured.", advanced=True, modes="T", ge=1
    )
    width_multiple: int = setting(
        1, "Numbers of filters are multiples of this; 8 suits GPUs.", advanced=True, modes="T", ge=1
    )
    resolution_multiple: int = setting(4, "Image sides are multiples of this.", advanced=True, modes="T", ge=1)
    max_predictor_error: float = setting(
        0.02, "Mean error of the accuracy of left-out samples that is accepted.", advanced=True, modes="T", gt=0
    )


class DimensionPruningConfig(ImageJobConfig):
    """Prune a convolutional network in depth, width and resolution to a budget, and fine-tune it."""

    model: PruningSettings = PruningSettings()

    @model_validator(mode="after")
    def _check_pruning(self) -> DimensionPruningConfig:
        model = self.model
        for name in ("width_levels", "resolution_levels"):
            levels = getattr(model, name)
            if not levels or list(levels) != sorted(set(levels), reverse=True) or not 0 < levels[-1] <= levels[0] < 1:
                raise ValueError(f"model.{name}={levels} must be falling numbers between 0 and 1")
        if len(set(model.dimensions)) != len(model.dimensions):
            raise ValueError(f"model.dimensions={model.dimensions} names one twice")
        return self


VARIANTS = {"": DimensionPruningConfig}
