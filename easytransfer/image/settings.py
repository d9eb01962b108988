"""Settings of augmentation; no TensorFlow here, so that configurations load fast."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from easytransfer.config.schema import ConfigModel, setting


class AugmentSettings(ConfigModel):
    """Random changes of training images, in this order: crop, flip, policy, cutout, erasing, mixup."""

    crop_padding: int = setting(
        4, "Zero pixels added on each side before a random crop of the old size; 0 = off.", advanced=True, ge=0
    )
    horizontal_flip: bool = setting(True, "Mirror half of the images left to right.", advanced=True, modes="T")
    policy: Literal["none", "auto_augment", "rand_augment"] = setting(
        "none",
        "auto_augment: the 25 pairs of operations found for CIFAR-10; rand_augment: rand_layers random operations.",
        advanced=True,
        modes="T",
    )
    rand_layers: int = setting(2, "Operations of rand_augment on each image.", advanced=True, modes="T", ge=1)
    rand_magnitude: float = setting(5.0, "Strength of rand_augment, 0 to 10.", advanced=True, modes="T", ge=0, le=10)
    cutout_size: int = setting(
        0, "Side of a square of mean colour put at a random place; 0 = off.", advanced=True, modes="T", ge=0
    )
    erase_probability: float = setting(
        0.0,
        "Share of images in which a random rectangle becomes the mean colour.",
        advanced=True,
        modes="T",
        ge=0,
        le=1,
    )
    erase_area: list[float] = setting(
        [0.02, 0.33], "Smallest and largest share of the image that is erased.", advanced=True, modes="T"
    )
    erase_aspect: list[float] = setting(
        [0.3, 3.3], "Smallest and largest height divided by width of what is erased.", advanced=True, modes="T"
    )
    mixup_alpha: float = setting(
        0.0,
        "Images and targets are mixed in pairs with a share from Beta(a, a); 0 = off.",
        advanced=True,
        modes="T",
        ge=0,
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> AugmentSettings:
        for name, most in (("erase_area", 1.0), ("erase_aspect", float("inf"))):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
                raise ValueError(f"augment.{name}={value} must be two numbers, 0 < smallest <= largest <= {most}")
        return self

    def active(self) -> list[str]:
        """Returns the names of the settings that change images."""
        changes = {
            "crop_padding": self.crop_padding,
            "horizontal_flip": self.horizontal_flip,
            "policy": self.policy != "none",
            "cutout_size": self.cutout_size,
            "erase_probability": self.erase_probability,
            "mixup_alpha": self.mixup_alpha,
        }
        return [name for name, value in changes.items() if value]
