"""The sides of an experiment: the student without its teacher, the student as it is configured, and the teacher."""

from __future__ import annotations

from easytransfer.app.arms import Arm

_ALONE = {"distillation.kd_loss": "none", "distillation.teacher": None}
_NOT_CACHED = {"distillation.kd_teacher_logits": "on_the_fly"}
_NO_LAYERS = {"distillation.hidden_weight": 0.0, "distillation.attention_weight": 0.0, "distillation.probes": False}
_NO_LAYERS |= {"distillation.layer_epochs": None, "distillation.layer_learning_rate": None}
_STUDENT_AND_TEACHER = {"student": Arm(), "teacher": Arm(finished="distillation.teacher", baseline=True)}

ARMS = {
    "bert": {"plain": Arm({**_ALONE, **_NOT_CACHED, **_NO_LAYERS}, baseline=True), **_STUDENT_AND_TEACHER},
    "cnn": {"plain": Arm({**_ALONE, **_NOT_CACHED}, baseline=True), **_STUDENT_AND_TEACHER},
    "labeling": {"plain": Arm(_ALONE, baseline=True), **_STUDENT_AND_TEACHER},
}
