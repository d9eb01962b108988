"""What can be set: a flat list of the fields of a configuration model, for flags, help and messages."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from easytransfer.config.schema import MODES, ConfigModel, is_sequence, path_form, union_members

MODE_LETTERS = dict(zip(MODES, "TEPXS", strict=True))
_TYPE_NAMES = {str: "text", int: "int", float: "float", bool: "true|false"}


@dataclass(frozen=True)
class Setting:
    """One field of a configuration model.

    Attributes:
        path: Dotted path, such as `train.batch_size`.
        flag: Command-line name without dashes; None when the field is a key of `--advancedParameters`.
        names: All accepted spellings, canonical first.
        keys: Names `--advancedParameters` accepts for it; a field with a flag may have some too.
        modes: Letters of the modes it applies to.
        required: Letters of the modes it must be given in.
        unless: When it need not be given there.
        kind: Readable type with its bounds.
        default: Default value.
        text: One sentence about it.
        is_bool: Whether the flag may stand without a value.
        path_form: `one` for a path, `list` for a comma list of them, else empty.
    """

    path: str
    flag: str | None
    names: tuple[str, ...]
    keys: tuple[str, ...]
    modes: str
    required: str
    unless: str
    kind: str
    default: Any
    text: str
    is_bool: bool
    path_form: str

    @property
    def name(self) -> str:
        """Field name, without its section."""
        return self.path.rpartition(".")[2]

    @property
    def section(self) -> str:
        """Section path; empty for top-level fields."""
        return self.path.rpartition(".")[0]

    @property
    def shown(self) -> str:
        """How a user types it."""
        return f"--{self.flag}" if self.flag else f"advancedParameters key {self.name}"

    def applies(self, mode: str) -> bool:
        """Returns whether the field means something in `mode`."""
        return MODE_LETTERS[mode] in self.modes


def camel(name: str) -> str:
    """Returns the camelCase form of a snake_case name."""
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


def type_text(annotation: Any, bounds: Iterable[Any] = ()) -> str:
    """Describes a type for people: `int >= 1`, `none|float16`, `list of int`."""
    words = []
    for kind in union_members(annotation):
        if kind is type(None):
            continue
        if typing.get_origin(kind) is typing.Literal:
            words.append("|".join(str(choice) for choice in typing.get_args(kind)))
        elif is_sequence(kind):
            inner = [item for item in typing.get_args(kind) if item is not Ellipsis]
            words.append("list of " + (type_text(inner[0]) if inner else "text"))
        else:
            words.append(_TYPE_NAMES.get(kind, getattr(kind, "__name__", str(kind))))
    limits = []
    for bound in bounds:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if getattr(bound, name, None) is not None:
                limits.append(f"{sign} {getattr(bound, name)}")
    return " or ".join(words) + (" " + " and ".join(limits) if limits else "")


def section_class(annotation: Any) -> type[ConfigModel] | None:
    """Returns the section model an annotation stands for, or None for a plain value."""
    for kind in union_members(annotation):
        if isinstance(kind, type) and issubclass(kind, ConfigModel):
            return kind
    return None


@functools.lru_cache(maxsize=64)
def settings_of(config_class: type[ConfigModel], prefix: str = "") -> tuple[Setting, ...]:
    """Lists all fields of a configuration model and of its sections, in order of declaration."""
    found: list[Setting] = []
    for name, field in config_class.model_fields.items():
        section = section_class(field.annotation)
        if section is not None:
            found.extend(settings_of(section, f"{prefix}{name}."))
        elif prefix + name != "schema_version":
            found.append(_setting(prefix + name, field))
    return tuple(found)


def _setting(path: str, field: FieldInfo) -> Setting:
    """Reads what `schema.setting` stored beside the field."""
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    name = path.rpartition(".")[2]
    # Parameters of the network were never flags of the original: they are typed in advancedParameters.
    advanced = bool(extra.get("advanced")) or path.startswith("model.")
    flag = None if advanced else (extra.get("flag") or camel(name))
    aliases: list[str] = list(extra.get("aliases", ()))
    names = [name, *aliases] if flag is None else [flag, name, *aliases]
    return Setting(
        path=path,
        flag=flag,
        names=tuple(dict.fromkeys(names)),
        keys=tuple(dict.fromkeys([name, *aliases] if advanced else aliases)),
        modes=extra.get("modes", "TEPXS"),
        required=extra.get("required", ""),
        unless=extra.get("unless", ""),
        kind=type_text(field.annotation, field.metadata),
        default=field.get_default(call_default_factory=True),
        text=field.description or "",
        is_bool=bool in union_members(field.annotation),
        path_form=path_form(field),
    )


def section_texts(config_class: type[ConfigModel]) -> dict[str, str]:
    """Returns the first docstring line of every section, by section path; the top level is the empty path."""
    texts = {"": (config_class.__doc__ or "").strip().split("\n")[0]}
    for name, field in config_class.model_fields.items():
        section = section_class(field.annotation)
        if section is not None:
            texts |= {f"{name}.{key}".rstrip("."): text for key, text in section_texts(section).items()}
    return texts
