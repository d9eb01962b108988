"""Which layers of a teacher the layers of a student learn from, and the settings of it. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import field_validator

from easytransfer.config.schema import ConfigModel, setting
from easytransfer.errors import ConfigError
from easytransfer.losses.distillation import layer_at_height

UNIFORM, LAST = "uniform", "last"
_PAIRS = re.compile(r"\d+:\d+(,\d+:\d+)*")
_FORM = f"{UNIFORM}, {LAST}, or pairs STUDENT:TEACHER such as 0:0,1:3,2:6"


def check_form(form: str) -> None:
    """Checks what can be checked without the networks.

    Raises:
        ValueError: It is of another form, or names a layer of the student twice.
    """
    if form in (UNIFORM, LAST):
        return
    if not _PAIRS.fullmatch(form):
        raise ValueError(f"{form!r} is no map of layers; accepted: {_FORM}")
    layers = [pair.split(":")[0] for pair in form.split(",")]
    if len(set(layers)) < len(layers):
        raise ValueError(f"the map of layers {form} names a layer of the student twice")


def layer_pairs(form: str, student: int, teacher: int) -> list[tuple[int, int]]:
    """Returns pairs of a layer of the student and one of the teacher, numbered from 1; 0 is what the first layer reads.

    `uniform` takes the layers at the same height, ceil(i N_t / N_s), and `last` the last ones of the teacher (TinyBERT,
    section 3.1); both pair the embeddings with each other.

    Args:
        form: `uniform`, `last`, or the pairs themselves, as `check_form` takes them.
        student: Layers of the student, N_s.
        teacher: Layers of the teacher, N_t.

    Raises:
        ConfigError: A layer that is named is not there, or `last` needs more layers than the teacher has.
    """
    if form == UNIFORM:
        return [(i, layer_at_height(i, student, teacher)) for i in range(student + 1)]
    if form == LAST:
        if student > teacher:
            raise ConfigError(
                f"distillation.layer_map=last: the student has {student} layers and the teacher {teacher}",
                fix="use distillation.layer_map=uniform, or name the pairs",
            )
        return [(0, 0), *((i, teacher - student + i) for i in range(1, student + 1))]
    pairs = [(int(i), int(j)) for i, j in (pair.split(":") for pair in form.split(","))]
    for i, j in pairs:
        if i > student or j > teacher:
            raise ConfigError(
                "distillation.layer_map names a layer that is not there",
                received=f"{i}:{j}",
                accepted=f"0 to {student} of the student, 0 to {teacher} of the teacher",
            )
    return pairs


def attended_pairs(
    pairs: Sequence[tuple[int, int]], form: str, student_heads: int, teacher_heads: int
) -> list[tuple[int, int]]:
    """Returns the pairs of layers whose attentions are compared: all but that of the embeddings.

    Args:
        pairs: What `layer_pairs` returned.
        form: Of which map, for messages.
        student_heads: Attention heads of the student.
        teacher_heads: Attention heads of the teacher.

    Raises:
        ConfigError: Embeddings, which have no attentions, are paired with a layer; or the networks have other numbers
            of heads.
    """
    found = [pair for pair in pairs if pair != (0, 0)]
    if 0 in (number for pair in found for number in pair) or not found:
        raise ConfigError(
            "distillation.layer_map pairs embeddings with a layer, and embeddings have no attentions",
            received=form,
            fix="pair 0 with 0 alone, or set distillation.attention_weight=0",
        )
    if student_heads != teacher_heads:
        raise ConfigError(
            "attentions are compared head by head, and the student has another number of heads",
            received=student_heads,
            accepted=f"{teacher_heads}, as the teacher has",
            fix=f"set model.num_heads={teacher_heads}, or distillation.attention_weight=0",
        )
    return found


class LayerMapSettings(ConfigModel):
    """Which layers of a student are compared with which ones of its teacher, and how much that weighs."""

    hidden_weight: float = setting(
        0.0, "Weight of the squared distance of the layers' outputs; 0 leaves it out.", advanced=True, modes="T", ge=0
    )
    attention_weight: float = setting(
        0.0,
        "Weight of the squared distance of the attention probabilities; 0 leaves it out.",
        advanced=True,
        modes="T",
        ge=0,
    )
    layer_map: str = setting(
        "uniform",
        "Which layer of the teacher each layer of the student learns from: uniform, last, or pairs STUDENT:TEACHER "
        "with commas between them, 0 for the embeddings.",
        advanced=True,
        modes="T",
    )

    @property
    def compares_layers(self) -> bool:
        """Whether outputs or attentions of layers are compared."""
        return bool(self.hidden_weight or self.attention_weight)

    @field_validator("layer_map")
    @classmethod
    def _is_map(cls, value: str) -> str:
        check_form(value)
        return value
