"""Configuration of the distillation of text classifiers."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.layer_map import LayerMapSettings
from appzoo.settings import EncoderStudentSettings, TargetSettings
from appzoo.words_settings import TextCnnSettings, check_text_cnn
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import ConfigModel, setting


class AnswerSettings(ConfigModel):
    """The teacher, and how the student learns from its answers."""

    teacher: str | None = setting(
        None,
        "Teacher: run folder, checkpoint or export of an application that classifies one text or a pair.",
        modes="T",
        path="one",
    )
    kd_loss: Literal["mse", "xent", "kld", "none"] = setting(
        "mse",
        "Distance of the student's logits to the teacher's: half the squared distance, cross entropy, or divergence; "
        "none: they are not compared.",
        advanced=True,
        modes="T",
    )
    kd_alpha: float = setting(
        1.0, "Weight of kd_loss=mse beside the cross entropy of the labels.", advanced=True, modes="T", ge=0
    )
    kd_task_balance: float = setting(
        0.3,
        "Share of the labels in kd_loss=xent and kld; the rest is the teacher's.",
        advanced=True,
        modes="T",
        ge=0,
        le=1,
    )
    kd_temperature: float = setting(
        2.0, "What both logits are divided by in kd_loss=xent and kld.", advanced=True, modes="T", gt=0
    )
    kd_teacher_logits: Literal["on_the_fly", "cached"] = setting(
        "on_the_fly",
        "cached: the teacher sees the training table once, before training; the file is found again by what is in it.",
        advanced=True,
        modes="T",
    )

    @model_validator(mode="after")
    def _check_teacher(self) -> AnswerSettings:
        if self.teacher is not None and not self.needs_teacher:
            raise ValueError(
                "distillation.teacher is given, and distillation.kd_loss=none does not use it; remove one of them"
            )
        return self

    @property
    def looks_inside(self) -> bool:
        """Whether the student learns from layers of the teacher."""
        return False

    @property
    def needs_teacher(self) -> bool:
        """Whether anything is learnt from a teacher."""
        return self.kd_loss != "none" or self.looks_inside


class LayerSettings(LayerMapSettings, AnswerSettings):
    """How a student that is an encoder learns from the layers of its teacher, too."""

    probes: bool = setting(
        False,
        "Train linear probes on every layer of the teacher first; probes on the student's layers learn from them.",
        advanced=True,
        modes="T",
    )
    probe_epochs: float = setting(
        4.0, "Passes over the training table for the teacher's probes.", advanced=True, modes="T", gt=0
    )
    probe_learning_rate: float = setting(5e-3, "Learning rate of the teacher's probes.", advanced=True, modes="T", gt=0)

    @property
    def looks_inside(self) -> bool:
        """Whether the student learns from layers of the teacher."""
        return self.compares_layers or self.probes

    @model_validator(mode="after")
    def _check_probes(self) -> LayerSettings:
        if self.probes and self.kd_loss == "none":
            raise ValueError(
                "distillation.probes needs a distance of logits; set distillation.kd_loss to another value"
            )
        return self


class EncoderDistillationConfig(JobConfig):
    """Train an encoder for one text or a pair on the answers, and on the layers, of a larger one."""

    model: EncoderStudentSettings = EncoderStudentSettings()
    distillation: LayerSettings = LayerSettings()

    @model_validator(mode="after")
    def _check_cache(self) -> EncoderDistillationConfig:
        if self.distillation.kd_teacher_logits == "cached" and self.distillation.looks_inside:
            raise ValueError(
                "distillation.kd_teacher_logits=cached keeps logits alone, and hidden_weight, attention_weight and "
                "probes need the teacher's layers; use on_the_fly"
            )
        return self


class CnnStudentSettings(TextCnnSettings, TargetSettings):
    """Words, convolutions and head of the student."""


class CnnDistillationConfig(JobConfig):
    """Train convolutions over the words of one text on the answers of a larger network."""

    model: CnnStudentSettings = CnnStudentSettings()
    distillation: AnswerSettings = AnswerSettings()

    @model_validator(mode="after")
    def _check_network(self) -> CnnDistillationConfig:
        check_text_cnn(self)
        return self


VARIANTS = {"bert": EncoderDistillationConfig, "cnn": CnnDistillationConfig}
