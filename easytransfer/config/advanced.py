"""The original's `--advancedParameters` text, read completely: nothing is cut off or ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from easytransfer.config.fields import Setting, settings_of
from easytransfer.config.files import read_text
from easytransfer.config.json_text import parse_json
from easytransfer.config.paths import expand_home
from easytransfer.config.schema import MODES, ConfigModel
from easytransfer.errors import ConfigError, closest

_FORM = "key=value pairs separated by white space, a JSON object, or @file.json"
# White space, comments, and the lone backslashes that line continuations leave in published scripts.
_BLANK = re.compile(r"(?:\s+|#[^\n]*|\\(?=\s|$))+")
_KEY = re.compile(r"([A-Za-z_]\w*)=")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s|#|\\|$)', re.DOTALL)
_PLAIN = re.compile(r"""(?:[^\s#"'=\\]|\\(?!\s|$))*(?=\s|\#|\\|$)""")


def parse_advanced(text: str) -> dict[str, Any]:
    r"""Reads advanced parameters into a dictionary of raw values.

    Example:
        >>> parse_advanced("num_filters=100,100 # three sizes \n name=\"a b\"")
        {'num_filters': '100,100', 'name': 'a b'}

    Raises:
        ConfigError: For text that is not a pair, an unreadable file, or a key given twice.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    if text.startswith("@"):
        try:
            text = read_text(expand_home(text[1:].strip())).strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--advancedParameters: cannot read {text}", fix=str(error)) from None
    return _unique(_read_json(text) if text.startswith("{") else _read_pairs(text))


def _read_json(text: str) -> list[tuple[str, Any]]:
    try:
        pairs = parse_json(text, object_pairs_hook=list)
    except ValueError as error:
        place = f" at character {error.pos}: {error.msg}" if isinstance(error, json.JSONDecodeError) else f": {error}"
        raise ConfigError(f"--advancedParameters: not valid JSON{place}") from None
    return list(pairs)


def _read_pairs(text: str) -> list[tuple[str, Any]]:
    """Splits the text form into (key, value) pairs."""
    pairs: list[tuple[str, Any]] = []
    at = _skip(text, 0)
    while at < len(text):
        key = _KEY.match(text, at)
        if key is None:
            raise _unreadable(text, at, "expected key=value")
        quoted = _QUOTED.match(text, key.end())
        plain = _PLAIN.match(text, key.end())
        if quoted is not None:
            pairs.append((key.group(1), re.sub(r"\\(.)", r"\1", quoted.group(1))))
            at = quoted.end()
        elif plain is not None:
            pairs.append((key.group(1), plain.group()))
            at = plain.end()
        else:
            raise _unreadable(text, at, 'put values with spaces, quotes, # or = between double quotes, as in key="a b"')
        at = _skip(text, at)
    return pairs


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _unreadable(text: str, at: int, fix: str) -> ConfigError:
    rest = text[at:].split("\n")[0][:60]
    return ConfigError("--advancedParameters is not readable", received=rest, accepted=_FORM, fix=fix)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"--advancedParameters: key {key} is given twice", received=f"{values[key]} and {value}")
        values[key] = value
    return values


def resolve_advanced(
    values: dict[str, Any], config_class: type[ConfigModel], mode: str
) -> dict[str, tuple[str, Setting, Any]]:
    """Finds the field of every advanced key.

    Returns:
        Dotted path -> (key as typed, field, raw value).

    Raises:
        ConfigError: For an unknown key, two keys of one field, or a key that means nothing in this mode.
    """
    settings = settings_of(config_class)
    keys = {key: item for item in settings for key in item.keys}
    found: dict[str, tuple[str, Setting, Any]] = {}
    for key, value in values.items():
        if key not in keys:
            raise _unknown_key(key, keys, settings)
        setting = keys[key]
        if setting.path in found:
            raise ConfigError(f"--advancedParameters: {found[setting.path][0]} and {key} set the same field")
        if not setting.applies(mode):
            modes = [name for name in MODES if setting.applies(name)]
            raise ConfigError(f"--advancedParameters: {key} does not apply to mode {mode}", accepted=modes)
        found[setting.path] = (key, setting, value)
    return found


def _unknown_key(key: str, keys: dict[str, Setting], settings: tuple[Setting, ...]) -> ConfigError:
    flag = next((item for item in settings if item.flag and key in item.names), None)
    if flag is not None:
        return ConfigError(f"--advancedParameters: {key} is a flag of its own", fix=f"write --{flag.flag}=VALUE")
    flags = {name: f"the flag --{item.flag}" for item in settings if item.flag for name in item.names}
    near = [flags.get(name, name) for name in closest(key, [*keys, *flags])]
    fix = "did you mean " + " or ".join(dict.fromkeys(near)) + "?" if near else "see --help for all keys"
    return ConfigError(f"--advancedParameters: unknown key {key}", fix=fix)
