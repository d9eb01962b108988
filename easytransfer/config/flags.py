"""Command-line flags: the original's camelCase names, generated from the fields of the configuration model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from easytransfer.config.fields import Setting, camel, settings_of
from easytransfer.config.schema import ConfigModel
from easytransfer.errors import ConfigError, closest


@dataclass(frozen=True)
class Given:
    """One flag as typed; `value` is None when it stands alone."""

    name: str
    value: str | None

    def text(self) -> str:
        """Returns the value of a flag that needs one."""
        if self.value is None:
            raise ConfigError(f"--{self.name} needs a value", accepted=f"--{self.name}=VALUE")
        return self.value


def split_flags(arguments: Sequence[str]) -> list[Given]:
    """Splits `--flag=value`, `--flag value` and `--flag`.

    Raises:
        ConfigError: For an argument that belongs to no flag.
    """
    found: list[Given] = []
    waiting = False
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, sign, value = argument[2:].partition("=")
            found.append(Given(name, value if sign else None))
            waiting = not sign
        elif waiting:
            found[-1] = Given(found[-1].name, argument)
            waiting = False
        else:
            name = argument.lstrip("-").split("=")[0]
            fix = f"write --{name}" if argument.startswith("-") else "quote values that contain spaces"
            raise ConfigError("unexpected argument", received=argument, accepted="--flag=value", fix=fix)
    return found


class FlagTable:
    """Finds the field behind a flag, by any accepted spelling.

    Args:
        config_class: Configuration model whose fields have flags.
        others: Flags of the command itself, named in suggestions.
    """

    def __init__(self, config_class: type[ConfigModel], others: Iterable[str] = ()) -> None:
        self.settings = settings_of(config_class)
        self.others = tuple(others)
        self._by_name = {name: item for item in self.settings if item.flag for name in item.names}
        self._keys = {name: item for item in self.settings if not item.flag for name in item.names}

    def find(self, name: str) -> Setting | None:
        """Returns the field of a flag, or None when the name is not a flag."""
        return self._by_name.get(name)

    def unknown(self, name: str) -> ConfigError:
        """Returns the error for a name that is not a flag, with the nearest ones."""
        key = self._keys.get(name) or next((item for key, item in self._keys.items() if camel(key) == name), None)
        if key is not None:
            fix = f"write --advancedParameters='{key.name}=VALUE' or --set {key.path}=VALUE"
            return ConfigError(f"unknown flag --{name}; {key.name} is a key of --advancedParameters", fix=fix)
        # A snake_case typo should suggest the canonical spelling, so both spellings are searched.
        flags = {item.flag: item.flag for item in self.settings if item.flag} | {name: name for name in self.others}
        near = closest(camel(name), flags) or closest(name, flags)
        shown = [f"--{item}" for item in near]
        # A misspelt advanced key is not worth a suggestion when a flag is as near.
        shown = shown or [f"--advancedParameters='{key}=VALUE'" for key in closest(name, self._keys)]
        fix = "did you mean " + " or ".join(shown) + "?" if shown else "see --help for all flags"
        return ConfigError(f"unknown flag --{name}", fix=fix)


def flag_value(given: Given, setting: Setting) -> str | bool:
    """Returns the text of a flag; a boolean flag standing alone means true."""
    if given.value is None and setting.is_bool:
        return True
    return given.text()
