"""Base of every configuration model: typed fields with one sentence each, unknown keys refused by name."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from easytransfer.config.json_text import parse_json

MODES = ("train", "evaluate", "predict", "export", "preprocess")


def setting(
    default: Any,
    text: str,
    *,
    flag: str | None = None,
    advanced: bool = False,
    aliases: tuple[str, ...] = (),
    modes: str = "TEPXS",
    required: str = "",
    **bounds: Any,
) -> Any:
    """Declares one configuration field; the field is the single source of its flag, help text and bounds.

    Args:
        default: Value when nothing is given.
        text: One sentence, shown by `--help` and `config`.
        flag: Name of the command-line flag; the camelCase of the field name when None.
        advanced: True when the key belongs to `--advancedParameters` instead of having a flag of its own.
        aliases: Further accepted names, as flags or advanced keys.
        modes: Modes the field applies to, letters of T(rain) E(valuate) P(redict) (e)X(port) S (preprocess).
        required: Modes in which it must be given, same letters.
        **bounds: Pydantic bounds such as `ge`, `gt`, `le`.
    """
    extra = {"flag": flag, "advanced": advanced, "aliases": list(aliases), "modes": modes, "required": required}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


def union_members(annotation: Any) -> list[Any]:
    """Returns the types an annotation allows: the members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def is_sequence(kind: Any) -> bool:
    """Returns whether a type is a list or tuple of values."""
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, str)


def read_value(value: Any, annotation: Any) -> Any:
    """Prepares a value from a command line, YAML or JSON for the type check; the same rules hold for all three.

    Empty text and, where text itself is not allowed, `none` and `null` mean "not set"; `a,b` becomes a list where a
    list belongs, and a list becomes `a,b` where the comma form belongs; true and false are not numbers. Of choices that
    are numbers, text and whole floats mean the equal one.
    """
    kinds = union_members(annotation)
    optional, takes_text = type(None) in kinds, str in kinds
    takes_list = any(is_sequence(kind) for kind in kinds)
    if isinstance(value, (str, float)) and (number := _numeric_choice(value, kinds)) is not None:
        return number
    if isinstance(value, str):
        if optional and (not value or (not takes_text and value.lower() in ("none", "null"))):
            return None
        if takes_list and not takes_text:
            is_json = value.lstrip().startswith("[")
            return parse_json(value) if is_json else [part.strip() for part in value.split(",")]
    elif isinstance(value, bool) and bool not in kinds:
        if int in kinds or float in kinds:
            raise ValueError("true and false are not numbers")
        # YAML reads a bare `true` as a boolean where the choice is the word.
        return str(value).lower()
    elif isinstance(value, (list, tuple)) and takes_text and not takes_list:
        if any(isinstance(item, (dict, list)) or "," in str(item) for item in value):
            raise ValueError("a list given for a comma-separated text must hold plain values without commas")
        # An empty list is an empty text, and that means "not set".
        return ",".join(str(item) for item in value) or (None if optional else "")
    return value


def _numeric_choice(value: str | float, kinds: Sequence[Any]) -> Any:
    """Returns the number among the choices that a text or a float stands for; pydantic compares without conversion."""
    choices = [
        choice for kind in kinds if typing.get_origin(kind) is typing.Literal for choice in typing.get_args(kind)
    ]
    numbers = [choice for choice in choices if isinstance(choice, (int, float)) and not isinstance(choice, bool)]
    if isinstance(value, float):
        return next((choice for choice in numbers if choice == value), None)
    return next((choice for choice in numbers if str(choice) == value.strip()), None)


class ConfigModel(BaseModel):
    """A configuration section. Unknown keys are errors; values are checked on assignment too."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, protected_namespaces=(), coerce_numbers_to_str=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        return read_value(value, cls.model_fields[str(info.field_name)].annotation)
