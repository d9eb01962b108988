"""Settings of what learns from a trained network: which one, and the probes on its layers. Imports no TensorFlow."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from easytransfer.config.schema import ConfigModel, setting


class TeacherSettings(ConfigModel):
    """The teacher; what is learnt from it is added by those who have one."""

    # The setting with which there is none.
    without_teacher: ClassVar[str]

    teacher: str | None = setting(
        None,
        "Teacher with the same labels: run folder or checkpoint, or an export where its answers alone are learnt from.",
        modes="T",
        path="one",
    )

    @property
    def needs_teacher(self) -> str:
        """The setting that asks for a teacher, as in `kd_loss=mse`; empty where nothing is learnt from one."""
        raise NotImplementedError(f"{type(self).__name__} does not say what needs a teacher")

    @model_validator(mode="after")
    def _check_teacher(self) -> TeacherSettings:
        if self.teacher is not None and not self.needs_teacher:
            raise ValueError(
                f"distillation.teacher is given, and distillation.{self.without_teacher} does not use it; remove one "
                "of them"
            )
        return self


class ProbeSettings(ConfigModel):
    """How linear probes on the layers of a teacher are trained."""

    probe_epochs: float = setting(
        4.0, "Passes over the training table for the teacher's probes.", advanced=True, modes="T", gt=0
    )
    probe_learning_rate: float = setting(5e-3, "Learning rate of the teacher's probes.", advanced=True, modes="T", gt=0)
