"""Facts about the models that are known by name: the presets.json of every model family, read as data."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The core never imports the model zoo; it only reads the data files that lie in its folders.
_ZOO_PACKAGE = "modelzoo"


@functools.cache
def families() -> dict[str, dict[str, Any]]:
    """Returns the contents of each `presets.json` by family (folder) name."""
    spec = importlib.util.find_spec(_ZOO_PACKAGE)
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    files = sorted(path for folder in folders for path in folder.glob("*/presets.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in files}


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """Returns the facts of every known model by its name, `family` among them."""
    return {
        entry["name"]: {"family": family, **entry} for family, data in families().items() for entry in data["presets"]
    }


@functools.cache
def _by_any_name() -> dict[str, str]:
    names = {}
    for name, entry in entries().items():
        for key in (name, *entry["aliases"]):
            names[key.lower()] = name
    return names


def find(name: str) -> dict[str, Any] | None:
    """Returns the facts of the model with this name or alias (in any case), or None."""
    found = _by_any_name().get(name.lower())
    return dict(entries()[found]) if found else None


def family_of_type(model_type: str, config: Mapping[str, Any] | None = None) -> str | None:
    """Returns the family that implements a `model_type`, or None.

    Args:
        model_type: The type.
        config: The config.json that names it. Of families with the same type one may have `marks` in its
            `presets.json`: keys that only its own files have.
    """
    found = {name: data.get("marks", ()) for name, data in families().items() if model_type in data["model_types"]}
    if len(found) == 1:
        return next(iter(found))
    marked = [name for name, marks in found.items() if any(key in (config or {}) for key in marks)]
    return next(iter([*marked, *(name for name, marks in found.items() if not marks)]), None)


@functools.cache
def config_names() -> tuple[str, ...]:
    """Returns the names that configurations of models have: `config.json`, and what families call theirs elsewhere."""
    return ("config.json", *(data["config_file"] for data in families().values() if "config_file" in data))


def type_of_config(data: dict[str, Any]) -> str | None:
    """Returns the `model_type` of the family whose key, of another program, a config.json without one has, or None."""
    for known in families().values():
        if known.get("config_key") in data:
            return known["model_types"][0]
    return None


def type_of_files(folder: Path) -> str | None:
    """Returns the `model_type` of the family whose own configuration file is in a folder, or None."""
    for data in families().values():
        if "config_file" in data and (folder / data["config_file"]).is_file():
            return data["model_types"][0]
    return None
