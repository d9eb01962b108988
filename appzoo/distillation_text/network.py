"""The student that is an encoder, with what only its training needs beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import tensorflow as tf

from appzoo.layer_probes import Probes
from appzoo.student_encoder import ProjectedStudent
from easytransfer import keras
from modelzoo.backbone import Backbone

TEACHER_PROBES, STUDENT_PROBES = "teacher_probes", "student_probes"


@dataclass(frozen=True)
class Extras:
    """What a student has for its training alone, which no prediction uses and no export holds.

    Attributes:
        width: Of the teacher's layers, where the student's outputs are projected to them; 0 where they are not.
        student_probes: Number of probes on the student: on its embeddings and all layers but the last; 0 for none.
        teacher_probes: Number of probes on the teacher: on its embeddings and all layers.
        teacher_width: Of the states that the teacher's probes look at.
    """

    width: int = 0
    student_probes: int = 0
    teacher_probes: int = 0
    teacher_width: int = 0

    def facts(self) -> dict[str, int]:
        """Returns what a run stores, so that its checkpoints fit."""
        return asdict(self)


class StudentModel(ProjectedStudent):
    """Encoder, dropout on the pooled [CLS], dense layer; for the training, projections and probes.

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the dense layer.
        extras: What is there for the training.
    """

    def __init__(self, backbone: Backbone, num_outputs: int, dropout_rate: float, extras: Extras) -> None:
        super().__init__(backbone, num_outputs, dropout_rate, extras.width)
        self.student_probes = self.teacher_probes = None
        if extras.student_probes:
            self.student_probes = Probes(extras.student_probes, num_outputs, STUDENT_PROBES)
            self.student_probes(tf.zeros([1, extras.student_probes, backbone.config.hidden_size]))
            self.teacher_probes = Probes(extras.teacher_probes, num_outputs, TEACHER_PROBES)
            self.teacher_probes(tf.zeros([1, extras.teacher_probes, extras.teacher_width]))

    def training_parts(self) -> list[keras.layers.Layer | None]:
        """Returns projections and probes; None where they are not wanted."""
        return [*super().training_parts(), self.student_probes, self.teacher_probes]
