"""A configuration in the making: values from several places, later ones winning, each remembering its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from easytransfer.config.fields import Setting, settings_of
from easytransfer.config.schema import ConfigModel, expand_path
from easytransfer.errors import ConfigError, closest

Model = TypeVar("Model", bound=ConfigModel)


class Draft:
    """Values gathered before they are checked, by dotted path.

    Example:
        >>> draft = Draft()
        >>> draft.update({"train": {"batch_size": 8}}, "job.yaml")
        >>> draft.put("train.batch_size", "16", "--batchSize")
        >>> draft.get("train.batch_size")
        '16'
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def put(self, path: str, value: Any, origin: str) -> None:
        """Sets one value; `origin` names the flag, file or argument it came from."""
        *sections, name = path.split(".")
        place = self.values
        for depth, section in enumerate(sections):
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{origin}: {'.'.join(sections[: depth + 1])} is a value, not a section")
        if isinstance(place.get(name), dict) and not isinstance(value, dict):
            raise ConfigError(
                f"{origin}: {path} is a section", received=value, accepted=", ".join(f"{path}.{k}" for k in place[name])
            )
        place[name] = value
        self.origins[path] = origin

    def update(self, values: dict[str, Any], origin: str, prefix: str = "") -> None:
        """Sets all values of a nested dictionary."""
        for name, value in values.items():
            path = f"{prefix}{name}"
            if isinstance(value, dict):
                self.update(value, origin, path + ".")
            else:
                self.put(path, value, origin)

    def fill(self, values: dict[str, Any], origin: str, prefix: str = "") -> None:
        """Sets those values of a nested dictionary that nothing has set yet."""
        for name, value in values.items():
            path = f"{prefix}{name}"
            if isinstance(value, dict):
                self.fill(value, origin, path + ".")
            elif path not in self.origins:
                self.put(path, value, origin)

    def take(self, path: str) -> Any:
        """Removes a value and returns it; None when it is not set."""
        value = self.get(path)
        if self.origins.pop(path, None) is not None:
            *sections, name = path.split(".")
            place = self.values
            for section in sections:
                place = place[section]
            del place[name]
        return value

    def expand_paths(self, settings: Iterable[Setting]) -> None:
        """Replaces `~` in paths, for those who read them before all values are checked."""
        for setting in settings:
            if setting.path_form and setting.path in self.origins:
                with contextlib.suppress(ValueError):  # told by `build`, with the other wrong values
                    self.put(
                        setting.path, expand_path(self.get(setting.path), setting.path_form), self.origins[setting.path]
                    )

    def get(self, path: str, default: Any = None) -> Any:
        """Returns the value at a dotted path, or `default`."""
        place: Any = self.values
        for name in path.split("."):
            if not isinstance(place, dict) or name not in place:
                return default
            place = place[name]
        return place

    def build(self, config_class: type[Model]) -> Model:
        """Checks all values and returns the configuration.

        Raises:
            ConfigError: For the first wrong value or unknown key, with its path, place, accepted form and suggestion.
        """
        try:
            return config_class.model_validate(self.values)
        except ValidationError as error:
            raise self._explain(error, config_class) from None

    def _explain(self, error: ValidationError, config_class: type[ConfigModel]) -> ConfigError:
        """Turns the first problem pydantic found into one message in the words of the user's input."""
        first, *others = error.errors(include_url=False)
        path, setting = _locate(first["loc"], config_class)
        origin = next((self.origins[key] for key in self.origins if key == path or key.startswith(path + ".")), "")
        place = origin if origin.startswith("--") else (f"{path} in {origin}" if origin else path)
        more = f"{len(others)} more problem(s) after this one" if others else None
        if first["type"] == "extra_forbidden":
            return ConfigError(f"unknown key {place}", fix=suggest_path(path, config_class))
        if setting is None and first["type"] == "value_error":
            # A check across fields, whose message names them.
            return ConfigError(str(first["ctx"]["error"]), fix=more)
        if setting is None:
            return ConfigError(f"{place} is a section of keys", received=first.get("input"), fix=more)
        what = f"wrong value for {place}"
        if first["type"] == "value_error":
            what += f": {first['ctx']['error']}"
        return ConfigError(what, received=first.get("input"), accepted=setting.kind, fix=more)


def _locate(loc: tuple[int | str, ...], config_class: type[ConfigModel]) -> tuple[str, Setting | None]:
    """Returns the dotted path of an error, cut after the field it belongs to, and that field."""
    known = {setting.path: setting for setting in settings_of(config_class)}
    for end in range(len(loc), 0, -1):
        path = ".".join(str(part) for part in loc[:end])
        if path in known:
            return path, known[path]
    return ".".join(str(part) for part in loc), None


def suggest_path(path: str, config_class: type[ConfigModel]) -> str:
    """Names the paths a user may have meant: the same key elsewhere, a similar one here, any similar path."""
    paths = [setting.path for setting in settings_of(config_class)]
    section, _, name = path.rpartition(".")
    siblings = {known.rpartition(".")[2]: known for known in paths if known.rpartition(".")[0] == section}
    elsewhere = [known for known in paths if known.rpartition(".")[2] == name]
    # A whole section is a candidate only for a name that is in none.
    others = paths if section else [*paths, *_sections(paths)]
    near = elsewhere or [siblings[key] for key in closest(name, siblings)] or closest(path, others)
    if near:
        return "did you mean " + " or ".join(near[:3]) + "?"
    return "`easy_transfer_app config APPLICATION` prints all keys"


def _sections(paths: list[str]) -> list[str]:
    return sorted({path.rpartition(".")[0] for path in paths} - {""})
