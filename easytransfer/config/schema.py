"""Base of every configuration model: typed fields with one sentence each, unknown keys refused by name."""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from easytransfer.config.json_text import parse_json
from easytransfer.config.paths import expand_home, expand_homes

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
    path: Literal["", "one", "list"] = "",
    unless: str = "",
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
        path: `one` where the value is a path, or a path among other things; `list` for a comma list of them. A `~` at
            the beginning of a path is replaced.
        unless: When it need not be given there all the same, in words that follow "unless".
        **bounds: Pydantic bounds such as `ge`, `gt`, `le`.
    """
    extra = {"flag": flag, "advanced": advanced, "aliases": list(aliases), "modes": modes, "required": required}
    return Field(default, description=text, json_schema_extra={**extra, "path": path, "unless": unless}, **bounds)


# Marks a setting that a subclass does without.
OPTIONAL = object()


class Changed(dict[str, Any]):
    """Defaults inside of a section, by path."""


def _by_field(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns new defaults by field, those of sections together."""
    found: dict[str, Any] = {}
    for path, value in defaults.items():
        name, _, rest = path.partition(".")
        if rest:
            found.setdefault(name, Changed())[rest] = value
        else:
            found[name] = value
    return found


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


def path_form(field: FieldInfo) -> str:
    """Returns the `path` that `setting` was given for a field."""
    extra = field.json_schema_extra
    return str(extra.get("path", "")) if isinstance(extra, dict) else ""


def expand_path(value: Any, form: str) -> Any:
    """Replaces `~` in the value of a setting whose `path` is `form`.

    Raises:
        ValueError: There is no such home folder.
    """
    if not form or not isinstance(value, str):
        return value
    return expand_home(value) if form == "one" else expand_homes(value)


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
    """A configuration section. Unknown keys are errors; values are checked on assignment too.

    A subclass gives inherited fields other defaults by their dotted paths, and retypes nothing:

        class GesturesConfig(JobConfig, defaults={"data.first_sequence": "frames", "train.learning_rate": 1e-2}):

    and says in the same way which required ones it does without: `optional=["data.label_name"]`.
    """

    model_config = ConfigDict(
        defer_build=True, extra="forbid", validate_assignment=True, protected_namespaces=(), coerce_numbers_to_str=True
    )

    def __init_subclass__(
        cls, defaults: Mapping[str, Any] | None = None, optional: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        changes = {**dict.fromkeys(optional, OPTIONAL), **(defaults or {})}
        for name, value in _by_field(changes).items():
            base = next(kind for kind in cls.__mro__[1:] if name in getattr(kind, "model_fields", {}))
            field = copy.copy(base.model_fields[name])
            if isinstance(value, Changed):
                section = type(field.default)
                changed = types.new_class(section.__name__, (section,), {"defaults": value})
                changed.__module__, changed.__doc__ = cls.__module__, section.__doc__
                field.annotation, field.default = changed, changed()
            elif value is OPTIONAL:
                field.json_schema_extra = {**field.json_schema_extra, "required": ""}
            else:
                field.default = value
            # pydantic collects fields from here once the class is made.
            cls.__annotations__ = {**cls.__dict__.get("__annotations__", {}), name: field.annotation}
            setattr(cls, name, field)

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        return expand_path(read_value(value, field.annotation), path_form(field))
