"""What a study searches: settings by dotted path, each with a range or with choices, checked by the configuration."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from easytransfer.config.draft import Draft, suggest_path
from easytransfer.config.fields import Setting, section_class, settings_of
from easytransfer.config.files import load_file
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import ConfigModel, union_members
from easytransfer.errors import ConfigError

FORM = "PATH=LOW..HIGH, with :log or :step=N behind it, PATH=A,B,C, or PATH alone between its bounds"
_RANGE = re.compile(r"(?P<low>[^,:]+?)\.\.(?P<high>[^,:]+)(?P<options>(?::[a-z]+(?:=[^:,]+)?)*)")
# What changes the rows that are measured, or how: scores of such trials do not compare.
_MEASURES = ("data.eval_share", "data.label_enumerate_values", "train.metric_for_best", "train.num_eval_steps")
_SECTIONS_WITHOUT = ("", "runtime", "distribution", "export")


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether the logarithm is uniform, not the number.
        step: Distance of the values, from `low` on; None for any number, 1 for whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int)

    def ends(self) -> tuple[Any, ...]:
        """Returns values that must be allowed for all to be."""
        return self.low, self.high

    def distribution(self) -> Any:
        """Returns it as Optuna's."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        step = f":step={self.step}" if self.step is not None else ""
        return f"{self.low}..{self.high}{':log' if self.log else step}"


@dataclass(frozen=True)
class Choices:
    """Values without an order.

    Attributes:
        values: At least two.
    """

    values: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        """Returns values that must be allowed for all to be."""
        return self.values

    def distribution(self) -> Any:
        """Returns it as Optuna's."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


Dimension = Range | Choices
Space = dict[str, Dimension]


def read_space(specs: Sequence[str], config: JobConfig, given: Mapping[str, str]) -> Space:
    """Returns what is searched, in the order given.

    Args:
        specs: Texts of the form `FORM`; a text without `=` that ends in .yaml, .yml or .json is a file with paths as
            keys and such ranges, lists of choices, or nothing as values.
        config: Configuration of all trials, but for what is searched.
        given: Dotted paths the user has set, each with the flag or file it came from.

    Raises:
        ConfigError: A path is unknown, set by a flag as well, or nothing to search; a range or a choice is wrong.
    """
    space: Space = {}
    for path, value in _entries(specs):
        if path in space:
            raise ConfigError(f"--search names {path} twice")
        setting = _searched(path, type(config))
        if given.get(path, "").startswith("--"):
            raise ConfigError(f"{path} is searched, and given by {given[path]}", fix="remove one of them")
        found = _dimension(path, value, _field(path, type(config)), setting)
        accepted = [_accepted(config, path, end) for end in found.ends()]
        space[path] = _distinct(path, accepted) if isinstance(found, Choices) else found
    if not space:
        raise ConfigError(
            "tune needs --search", accepted=FORM, fix="such as --search train.learning_rate=1e-5..1e-4:log"
        )
    return space


def with_values(config: JobConfig, values: Mapping[str, Any], origin: str = "--search") -> JobConfig:
    """Returns a configuration in which the settings at some paths have other values.

    Raises:
        ConfigError: They are not allowed, alone or together.
    """
    draft = Draft()
    draft.update(config.model_dump(mode="json"), "the configuration")
    for path, value in values.items():
        draft.put(path, value, f"{origin} {path}" if origin.startswith("--") else origin)
    return draft.build(type(config))


def _entries(specs: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields paths and what stands behind them; None behind a path alone."""
    for spec in specs:
        path, sign, value = spec.partition("=")
        if not sign and path.lower().endswith((".yaml", ".yml", ".json")):
            yield from load_file(spec).items()
        else:
            yield path.strip(), value.strip() if sign else None


def _searched(path: str, config_class: type[ConfigModel]) -> Setting:
    """Returns the setting at a path that may be searched."""
    found = next((item for item in settings_of(config_class) if item.path == path), None)
    if found is None:
        raise ConfigError(f"--search: unknown setting {path}", fix=suggest_path(path, config_class))
    wrong = found.section in _SECTIONS_WITHOUT or not found.applies("train") or found.path_form or path in _MEASURES
    if wrong:
        raise ConfigError(
            f"--search: {path} cannot be searched",
            accepted="settings of the network, the optimization and the encoding that leave the evaluated rows alone",
        )
    return found


def _field(path: str, config_class: type[ConfigModel]) -> FieldInfo:
    *sections, name = path.split(".")
    for section in sections:
        inner = section_class(config_class.model_fields[section].annotation)
        assert inner is not None
        config_class = inner
    return config_class.model_fields[name]


def _dimension(path: str, value: Any, field: FieldInfo, setting: Setting) -> Dimension:
    kinds = union_members(field.annotation)
    if value is None:
        return _of_schema(path, field, kinds, setting)
    if isinstance(value, list):
        return Choices(tuple(",".join(map(str, item)) if isinstance(item, list) else item for item in value))
    match = _RANGE.fullmatch(str(value).strip())
    if match is None:
        return Choices(tuple(part.strip() for part in str(value).split(",")))
    if not {int, float} & set(kinds):
        raise ConfigError(f"--search {path}: a range, where no number belongs", received=value, accepted=setting.kind)
    number = float if float in kinds else int
    options = dict(part.partition("=")[::2] for part in match["options"].split(":")[1:])
    log, step = options.pop("log", None), options.pop("step", None)
    if options or log or step == "":
        raise ConfigError(f"--search {path}: unknown option of a range", received=value, accepted=FORM)
    ends = [_number(path, text, number) for text in (match["low"], match["high"])]
    return _range(path, ends[0], ends[1], log is not None, None if step is None else _number(path, step, number))


def _number(path: str, text: str, number: type[int] | type[float]) -> float:
    try:
        value = number(text)
    except ValueError:
        kind = "whole numbers" if number is int else "numbers"
        raise ConfigError(f"--search {path}: wrong number in a range", received=text, accepted=kind) from None
    if not math.isfinite(value):
        raise ConfigError(f"--search {path}: wrong number in a range", received=text, accepted="finite numbers")
    return value


def _range(path: str, low: float, high: float, log: bool, step: float | None) -> Range:
    """Returns a range that makes sense."""
    shown = f"{low}..{high}"
    if not low < high:
        raise ConfigError(f"--search {path}: the range is empty", received=shown, accepted="LOW..HIGH with LOW < HIGH")
    if log and low <= 0:
        raise ConfigError(f"--search {path}: a logarithmic range begins above 0", received=shown)
    if log and step is not None:
        raise ConfigError(f"--search {path}: a range is logarithmic or has a step, not both", received=shown)
    if step is not None:
        parts = (high - low) / step if step > 0 else 0
        if parts < 1 or abs(parts - round(parts)) > 1e-9 * parts:
            raise ConfigError(f"--search {path}: {shown} is no whole number of steps", received=step)
    return Range(low, high, log, step)


def _of_schema(path: str, field: FieldInfo, kinds: Sequence[Any], setting: Setting) -> Dimension:
    """Returns all that the configuration allows: both words of a switch, all choices, or the numbers between bounds."""
    if bool in kinds:
        return Choices((False, True))
    words = [word for kind in kinds if typing.get_origin(kind) is typing.Literal for word in typing.get_args(kind)]
    if words:
        return Choices(tuple(words))
    bounds = {
        name: bound
        for item in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (bound := getattr(item, name, None)) is not None
    }
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is None or high is None or not {int, float} & set(kinds):
        raise ConfigError(
            f"--search {path}: the configuration knows no two bounds", received=setting.kind, accepted=FORM
        )
    if float in kinds:
        # Of open bounds the next number inside.
        low = float(low) if "ge" in bounds else math.nextafter(low, math.inf)
        high = float(high) if "le" in bounds else math.nextafter(high, -math.inf)
        return _range(path, low, high, False, None)
    return _range(path, low + ("ge" not in bounds), high - ("le" not in bounds), False, None)


def _accepted(config: JobConfig, path: str, value: Any) -> Any:
    """Returns a value as the configuration reads it; its text where it is a list."""
    checked: Any = with_values(config, {path: value})
    for name in path.split("."):
        checked = getattr(checked, name)
    return ",".join(map(str, checked)) if isinstance(checked, (list, tuple)) else checked


def _distinct(path: str, values: Sequence[Any]) -> Choices:
    if len(values) < 2 or len({(type(value), value) for value in values}) < len(values):
        raise ConfigError(
            f"--search {path}: choices are at least two, each once", received=",".join(map(str, values)), accepted=FORM
        )
    return Choices(tuple(values))
