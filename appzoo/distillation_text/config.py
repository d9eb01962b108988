"""Configuration of the distillation of text classifiers and of labellers of words."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from appzoo.labeling.settings import LabelingConfig, TagSettings
from appzoo.layer_map import LayerMapSettings
from appzoo.settings import EncoderStudentSettings, TargetSettings
from appzoo.teacher_settings import ProbeSettings, TeacherSettings
from appzoo.words_settings import TextCnnSettings, check_text_cnn
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class AnswerSettings(TeacherSettings):
    """The teacher, and how the student learns from its answers."""

    without_teacher = "kd_loss=none"

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

    @property
    def looks_inside(self) -> bool:
        """Whether the student learns from layers of the teacher."""
        return False

    @property
    def needs_teacher(self) -> str:
        """The setting that asks for a teacher; empty where nothing is learnt from one."""
        return "" if self.kd_loss == "none" else f"kd_loss={self.kd_loss}"

    @property
    def hard_factor(self) -> float:
        """What the cross entropy of the labels is multiplied by: 1, with xent and kld b."""
        return self.kd_task_balance if self.kd_loss in ("xent", "kld") else 1.0

    @property
    def soft_factor(self) -> float:
        """What the distance to the teacher is multiplied by: alpha, with xent and kld 1 - b."""
        return self.kd_alpha if self.kd_loss == "mse" else 1 - self.kd_task_balance


class RowAnswerSettings(AnswerSettings):
    """The teacher, and how the student learns from its answers, which are one for each row."""

    kd_teacher_logits: Literal["on_the_fly", "cached"] = setting(
        "on_the_fly",
        "cached: the teacher sees the training table once, before training; the file is found again by what is in it.",
        advanced=True,
        modes="T",
    )


class LayerSettings(LayerMapSettings, ProbeSettings, RowAnswerSettings):
    """How a student that is an encoder learns from the layers of its teacher, too."""

    probes: bool = setting(
        False,
        "Train linear probes on every layer of the teacher first; probes on the student's layers learn from them.",
        advanced=True,
        modes="T",
    )
    layer_epochs: float | None = setting(
        None,
        "Passes over the training table in which the student learns from outputs and attentions of layers alone, "
        "before it learns from answers alone; default: from both at once.",
        advanced=True,
        modes="T",
        gt=0,
    )
    layer_learning_rate: float | None = setting(
        None,
        "Learning rate of these passes; default train.learning_rate.",
        advanced=True,
        modes="T",
        gt=0,
    )

    @property
    def looks_inside(self) -> bool:
        """Whether the student learns from layers of the teacher."""
        return self.compares_layers or self.probes

    @property
    def needs_teacher(self) -> str:
        """The setting that asks for a teacher; empty where nothing is learnt from one."""
        layers = {"hidden_weight": self.hidden_weight, "attention_weight": self.attention_weight}
        asking = (f"{name}={weight:g}" for name, weight in layers.items() if weight)
        return super().needs_teacher or next(asking, "")

    @model_validator(mode="after")
    def _check_layers(self) -> LayerSettings:
        if self.probes and self.kd_loss == "none":
            raise ValueError(
                "distillation.probes needs a distance of logits; set distillation.kd_loss to another value"
            )
        if self.layer_epochs is not None and not self.compares_layers:
            raise ValueError(
                "distillation.layer_epochs needs layers that are compared; set distillation.hidden_weight or "
                "attention_weight, or remove it"
            )
        if self.layer_learning_rate is not None and self.layer_epochs is None:
            raise ValueError("distillation.layer_learning_rate is that of layer_epochs; give both, or remove it")
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
    distillation: RowAnswerSettings = RowAnswerSettings()

    @model_validator(mode="after")
    def _check_network(self) -> CnnDistillationConfig:
        check_text_cnn(self)
        return self


class LabelingStudentSettings(EncoderStudentSettings, TagSettings):
    """The student, an encoder, and what it gives a tag."""


class LabelingDistillationConfig(LabelingConfig):
    """Train an encoder that gives every word or character a tag on the answers of a larger one."""

    model: LabelingStudentSettings = LabelingStudentSettings()
    distillation: AnswerSettings = AnswerSettings()


VARIANTS = {"bert": EncoderDistillationConfig, "cnn": CnnDistillationConfig, "labeling": LabelingDistillationConfig}
