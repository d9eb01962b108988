"""Configuration of meta-distillation."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.layer_map import LayerMapSettings
from appzoo.settings import DomainDataConfig, EncoderStudentSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import ConfigModel, setting


class MetaStudentSettings(EncoderStudentSettings):
    """The student, and what its meta-teacher starts from."""

    teacher_encoder: str | None = setting(
        None,
        "Encoder that the meta-teacher starts from, a ModelZoo name or folder of the same vocabulary; default all "
        "layers of the one that pretrain_model_name_or_path names.",
        advanced=True,
        modes="T",
        path="one",
    )


class MetaTeacherSettings(ConfigModel):
    """The meta-teacher, and how it learns."""

    teacher: str | None = setting(
        None,
        "Run of meta_distillation whose meta-teacher is taken; without it one is trained first.",
        modes="T",
        path="one",
    )
    student_domain: str | None = setting(
        None, "Domain whose rows the student learns from, where a teacher is given; default all domains.", modes="T"
    )
    use_typicality: bool = setting(
        True,
        "Weight rows by how typical they are of their class in all domains; false: all count alike.",
        advanced=True,
        modes="T",
    )
    teacher_epochs: float = setting(
        3.0, "Passes over the training table for the meta-teacher.", advanced=True, modes="T", gt=0
    )
    teacher_learning_rate: float | None = setting(
        None, "Learning rate of the meta-teacher; default train.learning_rate.", advanced=True, modes="T", gt=0
    )
    domain_weight: float = setting(
        0.5, "Weight of the meta-teacher's loss of the corrupted domains.", advanced=True, modes="T", ge=0
    )
    layer_epochs: float = setting(
        3.0, "Passes over the training table for the student's layers.", advanced=True, modes="T", gt=0
    )
    layer_learning_rate: float | None = setting(
        None, "Learning rate of the student's layers; default train.learning_rate.", advanced=True, modes="T", gt=0
    )


class MetaTeachingSettings(LayerMapSettings, MetaTeacherSettings):
    """The meta-teacher, and what the student learns from it."""

    hidden_weight: float = setting(
        1.0,
        "Weight of the squared distance of embeddings and outputs of layers; 0 leaves it out.",
        advanced=True,
        modes="T",
        ge=0,
    )
    attention_weight: float = setting(
        1.0,
        "Weight of the squared distance of the attention probabilities; 0 leaves it out.",
        advanced=True,
        modes="T",
        ge=0,
    )
    transfer_weight: float = setting(
        0.5,
        "Weight of the squared distance of the representations of domains; 0 leaves it out.",
        advanced=True,
        modes="T",
        ge=0,
    )
    kd_temperature: float = setting(2.0, "What both logits are divided by.", advanced=True, modes="T", gt=0)

    @property
    def looks_inside(self) -> bool:
        """Whether the student learns from more than answers."""
        return self.compares_layers or bool(self.transfer_weight)

    @model_validator(mode="after")
    def _check_domain(self) -> MetaTeachingSettings:
        if self.student_domain is not None and self.teacher is None:
            raise ValueError(
                "distillation.student_domain needs a meta-teacher that has learnt all domains: give a run with "
                "--teacher=RUN, or leave student_domain out"
            )
        return self


class MetaDistillationConfig(JobConfig):
    """Train a meta-teacher on one text or a pair of several domains, and a small student on what it has learnt."""

    data: DomainDataConfig = DomainDataConfig()
    model: MetaStudentSettings = MetaStudentSettings()
    distillation: MetaTeachingSettings = MetaTeachingSettings()

    @model_validator(mode="after")
    def _check_encoder(self) -> MetaDistillationConfig:
        if self.model.teacher_encoder is not None and self.distillation.teacher is not None:
            raise ValueError(
                "model.teacher_encoder is what a new meta-teacher starts from, and distillation.teacher has one "
                "already; remove one of them"
            )
        return self


VARIANTS = {"": MetaDistillationConfig}
