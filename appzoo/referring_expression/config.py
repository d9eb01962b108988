"""Configuration of finding the region that an expression means."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.vision_language_settings import VisionLanguageConfig, VisionLanguageDataConfig, VisionLanguageSettings
from easytransfer.config.schema import setting


class ReferringDataConfig(VisionLanguageDataConfig):
    """Tables of expressions and images, and their columns."""

    first_sequence: str | None = setting("expression", "Column with the expression.", modes="TEPS")
    label_name: str | None = setting(
        "target_box", "Column with the box that is meant, 4 numbers; see model.target_box_form.", modes="TE"
    )


class ReferringSettings(VisionLanguageSettings):
    """A network on words and regions, and the form of the boxes in the table."""

    target_box_form: Literal["xywh", "shares"] = setting(
        "xywh",
        "The box that is meant: x, y, width and height in pixels, of images whose size is known; or shares: x1, y1, "
        "x2, y2 divided by the size of the image.",
        advanced=True,
        modes="TE",
    )


class ReferringConfig(VisionLanguageConfig):
    """Find the region of an image that an expression means."""

    data: ReferringDataConfig = ReferringDataConfig()
    model: ReferringSettings = ReferringSettings()

    @model_validator(mode="after")
    def _check_boxes(self) -> ReferringConfig:
        if self.data.label_enumerate_values is not None:
            raise ValueError("data.label_enumerate_values does not apply: the label is a box; remove it")
        if self.train.class_weights is not None or self.train.label_smoothing:
            raise ValueError("train.class_weights and train.label_smoothing do not apply to regions; remove them")
        return self


VARIANTS = {"": ReferringConfig}
