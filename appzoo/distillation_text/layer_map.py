"""How a map of the student's layers to the teacher's is written. Imports no TensorFlow."""

from __future__ import annotations

import re

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
