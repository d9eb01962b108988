"""Configuration files: reading YAML and JSON safely, writing what was resolved."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from easytransfer.config.fields import Setting, section_texts, settings_of
from easytransfer.config.json_text import parse_json
from easytransfer.config.paths import user_path
from easytransfer.config.schema import MODES, ConfigModel
from easytransfer.errors import ConfigError

# A configuration has a few thousand characters; what is much longer is something else.
MOST_BYTES = 1 << 20
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of silently keeping the last, and aliases.

    A few lines of aliases of aliases stand for billions of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Builds the next node; raises on an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ConfigError(
                f"{event.start_mark.name} line {event.start_mark.line + 1}: aliases are not read",
                received=f"*{event.anchor}",
                fix="write the value itself",
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping; raises on a repeated key."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{key_node.start_mark.name} line {line}: key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns the text of a configuration file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no UTF-8, or longer than any configuration.
    """
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def load_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML or JSON configuration file; `${VAR}` in texts is replaced by the environment variable.

    Raises:
        ConfigError: If the file is missing, is not a mapping, repeats a key, or names an unset variable.
    """
    try:
        text = read_text(user_path(path))
    except OSError as error:
        near = sorted(str(item) for item in Path(path).parent.glob("*.y*ml")) if Path(path).parent.is_dir() else []
        raise ConfigError(
            f"cannot read configuration file {path}: {error.strerror}",
            fix="files beside it: " + ", ".join(near[:5]) if near else None,
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration file {path} is not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f"cannot read configuration file {str(path)!r}: {error}") from None
    if str(path).endswith(".json") and (values := _json(text, str(path))) is not None:
        return dict(_expanded(values, str(path)))
    values = _yaml(text, str(path), "not valid YAML or JSON")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values", received=type(values).__name__)
    return dict(_expanded(values, str(path)))


def _yaml(text: str, place: str, problem: str) -> Any:
    """Returns the value of a YAML text; a ConfigError that begins with the place and the problem when it has none."""
    try:
        loader = _StrictLoader(text)
        loader.name = place
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        detail = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise ConfigError(f"{place}{line}: {problem}: {detail}") from None
    except RecursionError:
        raise ConfigError(f"{place}: {problem}: it is nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # What constructors of YAML raise for a 13th month, `!!int x` or `!!map x`.
        raise ConfigError(f"{place}: {problem}: {error}") from None


def _json(text: str, place: str) -> dict[str, Any] | None:
    """Returns the mapping of a JSON text, None when it is not one: YAML differs in tabs and numbers such as 1e-5."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise ConfigError(f"{place}: key {twice[0]!r} is given twice")
        return dict(pairs)

    try:
        values = parse_json(text, object_pairs_hook=unique)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _expanded(value: Any, place: str) -> Any:
    """Replaces `${VAR}` in all texts below `value`."""
    if isinstance(value, dict):
        return {str(key): _expanded(item, f"{place}: {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, place) for item in value]
    if not isinstance(value, str):
        return value
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigError(f"{place}: half of a surrogate pair, which is no character", received=value)

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{place}: environment variable {name} is not set", fix=f"export {name}=...")
        return os.environ[name]

    return _VARIABLE.sub(variable, value)


def parse_override(text: str) -> tuple[str, Any]:
    """Splits `group.field=value` of `--set`; the value is read as YAML only when it is a list, mapping or null.

    Example:
        >>> parse_override("train.batch_size=16")
        ('train.batch_size', '16')
    """
    path, sign, value = text.partition("=")
    path = path.strip()
    if not sign or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", path):
        raise ConfigError("--set needs a dotted path and a value", received=text, accepted="--set group.field=value")
    value = value.strip()
    if value in ("null", "~"):
        return path, None
    if value[:1] in ("[", "{", '"', "'"):
        return path, _yaml(value, f"--set {path}", "the value is not valid YAML")
    return path, value


def dump(config: ConfigModel, mode: str | None = None) -> dict[str, Any]:
    """Returns the resolved configuration as plain values; loading it again gives the same configuration."""
    values = config.model_dump(mode="json")
    return {"mode": mode, **values} if mode else values


def take_mode(values: dict[str, Any], place: str) -> str | None:
    """Removes and returns the `mode` that a dumped configuration carries beside its keys."""
    mode = values.pop("mode", None)
    if mode is not None and mode not in MODES:
        raise ConfigError(f"wrong value for mode in {place}", received=mode, accepted=MODES)
    return mode


def commented_yaml(config_class: type[ConfigModel], given: dict[str, Any] | None = None) -> str:
    """Returns the full default configuration as YAML, every field with its sentence as a comment.

    Args:
        config_class: Configuration model of an application.
        given: Values by dotted path that replace defaults, such as the model name.
    """
    texts = section_texts(config_class)
    lines = [f"# {texts['']}", "# Every value below is the default; keep only the lines you change.", ""]
    section = ""
    for setting in sorted(settings_of(config_class), key=lambda item: bool(item.section)):
        if setting.section != section:
            section = setting.section
            depth = section.count(".")
            lines += ["", f"{'  ' * depth}# {texts.get(section, '')}", f"{'  ' * depth}{section.split('.')[-1]}:"]
        lines += _yaml_entry(setting, (given or {}).get(setting.path, setting.default))
    return "\n".join(lines) + "\n"


def _yaml_entry(setting: Setting, value: Any) -> list[str]:
    """Returns the comment and the `key: value` line of one field."""
    indent = "  " * (setting.section.count(".") + 1 if setting.section else 0)
    needed = [mode for mode, letter in zip(MODES, "TEPXS", strict=True) if letter in setting.required]
    comment = f"{setting.text} [{setting.kind}]" + (f" Required in {', '.join(needed)}." if needed else "")
    wrapped = textwrap.wrap(comment, 110, break_long_words=False)
    shown = "null" if value is None else json.dumps(value, ensure_ascii=False)
    return [f"{indent}# {line}" for line in wrapped] + [f"{indent}{setting.name}: {shown}"]
