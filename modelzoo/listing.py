"""What is known of models, for those who choose one: size, language or input, licence, where it is or how to get it.

Imports no TensorFlow and uses no network.
"""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easytransfer.config.paths import user_path
from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import Preset, catalogue, default_zoo, hub, resolve
from easytransfer.presets.preset import package_folder, zoo_folders
from modelzoo.loading import family_module, family_of

_FACTS = ("type", "layers", "hidden", "heads", "vocab", "parameters", "language", "input", "licence")
# Of a network whose files are not here: numbers of 32 bits.
_BYTES_OF_A_FLOAT = 4


def list_models(
    zoo: str | Path | None = None,
    *,
    pattern: str | None = None,
    type: str | None = None,
    language: str | None = None,
    licence: str | None = None,
    present: bool | None = None,
) -> list[dict[str, Any]]:
    """Returns every model known by name, every model folder of the zoo, and those of the hub that were downloaded.

    Args:
        zoo: Root of the ModelZoo.
        pattern: Part of the name or of an alias; `*` and `?` stand for any characters and for one.
        type: Family, or `model_type` of the configuration.
        language: Language of the texts, such as `en`.
        licence: Part of the licence, in any case.
        present: Only those that are here, or only those that are not.

    Returns:
        Facts by name, None for what is not known: `bytes` of the files, or of the weights in float32 where there are no
        files; `folder` and `lacks`, the files of an interrupted download; `get`, the command that gets an absent one.

    Raises:
        ConfigError: There is no such family or language.
    """
    rows = [*_known(user_path(zoo) if zoo else default_zoo()), *_of_hub()]
    kept = rows
    for what, value, values in (("type", type, _types), ("language", language, _languages)):
        if value is not None:
            _check_there(what, value, {found for row in rows for found in values(row)})
            kept = [row for row in kept if value in values(row)]
    if pattern is not None:
        names = f"*{pattern.lower()}*"
        kept = [row for row in kept if any(fnmatch.fnmatchcase(name.lower(), names) for name in _names(row))]
    if licence is not None:
        kept = [row for row in kept if licence.lower() in str(row["licence"] or "").lower()]
    if present is not None:
        kept = [row for row in kept if present is (row["folder"] is not None and not row["lacks"])]
    return kept


def show(name: str, zoo: str | Path | None = None) -> dict[str, Any]:
    """Returns all facts about one model, with an example command, and its configuration and files when it is present.

    Raises:
        ModelError: The name is unknown.
    """
    try:
        preset = resolve(name, zoo)
    except ModelError:
        if (known := catalogue.find(name)) is None:
            raise
        return {**known, **_place(known, None), "example": example(known["family"], known["name"])}
    family = family_of(preset)
    config = family_module(family, "config").CONFIG_CLASS.from_folder(preset.folder)
    return {
        **preset.facts,
        "name": preset.name,
        "family": family,
        "type": preset.facts.get("type") or getattr(config, "model_type", family),
        **_place(preset.facts, preset.folder),
        "parameters": family_module(family, "convert").parameters_in(preset.folder),
        "config": config.to_dict(),
        "files": {path.name: path.stat().st_size for path in sorted(preset.folder.iterdir()) if path.is_file()},
        "example": example(family, _typed(name, preset)),
    }


def example(family: str, name: str) -> str:
    """Returns a command line that uses a model: the `example` of the family's `presets.json`, if any, else a check."""
    line = catalogue.families()[family].get("example", "easy_transfer_app zoo verify {name}")
    return str(line).replace("{name}", shlex.quote(name))


def _typed(name: str, preset: Preset) -> str:
    """Returns a name that means the same model from any folder."""
    path = user_path(name)
    return str(path.absolute()) if path.exists() else name


def _known(root: Path) -> Iterator[dict[str, Any]]:
    """Yields the models of the catalogue, then the other folders of the zoo."""
    folders = zoo_folders(root)
    for name, facts in catalogue.entries().items():
        folder = folders.pop(name, None)
        if folder is None and facts["origin"]["kind"] == "python-package":
            folder = package_folder(facts["origin"])
        if folder is None and (model := hub.of_origin(facts["origin"])):
            folder = hub.snapshot(model)
        yield _row(name, facts["family"], facts, folder)
    for name, folder in folders.items():
        preset = resolve(folder)
        yield _row(name, _family(preset), preset.facts, folder)


def _of_hub() -> Iterator[dict[str, Any]]:
    """Yields downloaded models of the hub; those of families that cannot be loaded belong to other programs."""
    listed = {model.id for facts in catalogue.entries().values() if (model := hub.of_origin(facts["origin"]))}
    for model in (model for model in hub.downloaded() if model.id not in listed):
        preset = resolve(str(model))
        if family := _family(preset):
            facts = {"type": family, "input": _image_form(family, preset), **preset.facts}
            yield _row(str(model), family, facts | {"parameters": _parameters(family, preset)}, preset.folder)


def _family(preset: Preset) -> str | None:
    """Returns the family of a folder whose configuration it can read, else None."""
    try:
        family = family_of(preset)
        family_module(family, "config").CONFIG_CLASS.from_folder(preset.folder)
    except ModelError:
        return None
    return family


def _image_form(family: str, preset: Preset) -> dict[str, Any] | None:
    """Returns the size of the images that a network takes; None for one of texts."""
    config = family_module(family, "config").CONFIG_CLASS.from_folder(preset.folder)
    return {"image_size": config.image_size} if hasattr(config, "image_size") else None


def _parameters(family: str, preset: Preset) -> int | None:
    try:
        return family_module(family, "convert").parameters_in(preset.folder)
    except ModelError:
        return None


def _row(name: str, family: str | None, facts: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    known = {key: facts.get(key) for key in _FACTS}
    return {"name": name, "family": family, **known, **_place({**facts, "name": name}, folder)}


def _place(facts: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Returns where a model is and how large, or how to get it and how sure that is."""
    if folder is not None:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        lacks = hub.absent_weights(folder) if facts.get("origin", {}).get("kind") == "hub" else []
        return {"folder": str(folder), "bytes": size, "lacks": lacks, "get": None, "get_note": None}
    parameters, origin = facts.get("parameters"), facts.get("origin", {})
    is_unsure = origin.get("kind") in ("download", "file") and not origin.get("checksum")
    return {
        "folder": None,
        "bytes": parameters and parameters * _BYTES_OF_A_FLOAT,
        "lacks": [],
        "get": f"easy_transfer_app zoo fetch {facts['name']} --offline=false",
        "get_note": facts.get("sha256_reason") if is_unsure else None,
    }


def _names(row: dict[str, Any]) -> list[str]:
    return [row["name"], *(catalogue.find(row["name"]) or {}).get("aliases", ())]


def _types(row: dict[str, Any]) -> set[str]:
    return {value for value in (row["family"], row["type"]) if value}


def _languages(row: dict[str, Any]) -> set[str]:
    """Returns the languages of a model; manifests have them as one text, such as `en, zh`."""
    return {part.strip() for part in (row["language"] or "").split(",") if part.strip()}


def _check_there(what: str, value: str, there: set[str]) -> None:
    if value not in there:
        raise ConfigError(f"no model has this {what}", received=value, accepted=sorted(there))
