"""Configuration of spherical knowledge distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from appzoo.distillation_skd.alpha import PUBLISHED, AlphaSchedule
from appzoo.image_settings import ImageJobConfig, ImageSettings
from easytransfer.config.schema import ConfigModel, setting


class StudentSettings(ImageSettings):
    """The student and the form of its input."""

    network: str | None = setting(  # type: ignore[assignment]
        None, "Name of the student's network; it has no default, which could be the teacher's own.", modes="T"
    )


class DistillationSettings(ConfigModel):
    """The teacher, and how the student learns from it."""

    teacher: str | None = setting(
        None,
        "Teacher: run folder or checkpoint of an image application, or a folder with a SavedModel that gives logits.",
        modes="TE",
        path="one",
    )
    kd_method: Literal["skd_ln", "skd_std", "skd_l2", "kd", "none"] = setting(
        "skd_ln",
        "skd_ln: both logits centred and at one deviation; skd_std: the student's at the teacher's deviation; skd_l2: "
        "both at one length; kd: logits as they are; none: no teacher.",
        advanced=True,
        modes="T",
    )
    kd_temperature: float = setting(
        4.0, "Temperature of the softmax in the distillation loss.", advanced=True, modes="T", gt=0
    )
    kd_multiplier: float | None = setting(
        None,
        "What normalised logits are multiplied by; default the teacher's mean deviation over the training table (mean "
        "length for skd_l2).",
        advanced=True,
        modes="T",
        gt=0,
    )
    kd_alpha_schedule: str = setting(
        PUBLISHED,
        "Share of the distillation loss: constant:ALPHA, or 0:ALPHA,PERCENT:ALPHA,... by percent of the run.",
        advanced=True,
        modes="T",
    )
    kd_teacher_logits: Literal["on_the_fly", "cached"] = setting(
        "on_the_fly",
        "cached: the teacher sees the training table once, before training; needs images without augmentation.",
        advanced=True,
        modes="T",
    )
    kd_probabilities: Literal["sphere", "raw"] = setting(
        "sphere",
        "Softmax of the logits as skd_* trained them (normalised, times the multiplier), or of the raw ones.",
        advanced=True,
        modes="TEPX",
    )

    @field_validator("kd_alpha_schedule")
    @classmethod
    def _is_schedule(cls, value: str) -> str:
        AlphaSchedule.parse(value)
        return value


class DistillationSkdConfig(ImageJobConfig):
    """Train a small image network on the normalised logits of a large one."""

    model: StudentSettings = StudentSettings()
    distillation: DistillationSettings = DistillationSettings()

    @model_validator(mode="after")
    def _check_cache(self) -> DistillationSkdConfig:
        active = self.augment.active()
        if self.distillation.kd_teacher_logits == "cached" and active:
            raise ValueError(
                "distillation.kd_teacher_logits=cached needs images that stay the same; turn off "
                f"{', '.join(f'augment.{name}' for name in active)}, or use on_the_fly"
            )
        return self


VARIANTS = {"": DistillationSkdConfig}
