"""What `easy_transfer_app zoo` does: list, show, verify, import, export, fetch and make-tiny.

Every function returns a JSON-able dict (or a list of them). Listing and showing import no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easytransfer.config.paths import user_path
from easytransfer.errors import ModelError
from easytransfer.presets import Preset, catalogue, default_zoo, resolve
from easytransfer.presets.folder import check_files
from easytransfer.presets.preset import fetch_line, package_folder, zoo_folders
from modelzoo.fetch import fetch
from modelzoo.importing import export_model, forward, import_model
from modelzoo.loading import family_module, family_of

__all__ = ["export_model", "fetch", "import_model", "list_models", "make_tiny", "show", "verify"]

_COLUMNS = ("type", "layers", "hidden", "heads", "vocab", "parameters", "language", "input", "licence")


def list_models(zoo: str | Path | None = None) -> list[dict[str, Any]]:
    """Returns every model known by name and every model folder of the zoo.

    Returns:
        Facts of each, None where a family has no such fact; `folder` is None for absent ones, and `get` is the command
        that gets those, None for present ones.
    """
    root = user_path(zoo) if zoo else default_zoo()
    folders = zoo_folders(root)
    rows = []
    for name, facts in catalogue.entries().items():
        folder = folders.pop(name, None)
        if folder is None and facts["origin"]["kind"] == "python-package":
            folder = package_folder(facts["origin"])
        rows.append(_row(name, facts["family"], facts, folder))
    for name, folder in folders.items():
        preset = resolve(folder)
        rows.append(_row(name, _family(preset), preset.facts, folder))
    return rows


def _row(name: str, family: str | None, facts: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Returns what is listed of a model."""
    known = {key: facts.get(key) for key in _COLUMNS}
    found = {"folder": folder and str(folder), "get": None if folder else fetch_line(name)}
    return {"name": name, "family": family, **known, **found}


def _family(preset: Preset) -> str | None:
    """Returns the family of a folder, None for one that no family here implements."""
    try:
        return family_of(preset)
    except ModelError:
        return None


def show(name: str, zoo: str | Path | None = None) -> dict[str, Any]:
    """Returns all facts about one model, with its configuration and files when it is present.

    Raises:
        ModelError: The name is unknown.
    """
    try:
        preset = resolve(name, zoo)
    except ModelError:
        if (known := catalogue.find(name)) is None:
            raise
        return {**known, "folder": None, "get": fetch_line(known["name"])}
    family = family_of(preset)
    config = family_module(family, "config").CONFIG_CLASS.from_folder(preset.folder)
    return {
        **preset.facts,
        "name": preset.name,
        "family": family,
        "folder": str(preset.folder),
        "parameters": family_module(family, "convert").parameters_in(preset.folder),
        "config": config.to_dict(),
        "files": {path.name: path.stat().st_size for path in sorted(preset.folder.iterdir()) if path.is_file()},
    }


def verify(name: str, zoo: str | Path | None = None, allow_missing: str | None = None) -> dict[str, Any]:
    """Checks a model that is present: checksums, that all weights fit, and a forward pass.

    Raises:
        ModelError: A check failed; the message says which.
    """
    preset = resolve(name, zoo)
    checksums = {file: entry["sha256"] for file, entry in preset.facts.get("files", {}).items()}
    # The checksums of presets.json hold for the published files, those of zoo.json for this very folder.
    checksums = checksums or preset.facts.get("sha256") or {}
    problems = check_files(preset.folder, checksums)
    if problems:
        raise ModelError(
            f"{preset.folder} differs from its recorded checksums: " + "; ".join(problems),
            fix="copy or fetch the model again; one that was changed on purpose gets new checksums from "
            f"`easy_transfer_app zoo import {preset.folder} NEW_FOLDER`",
        )
    backbone = forward(preset, allow_missing)
    return {
        "name": preset.name,
        "folder": str(preset.folder),
        "checksums": f"{len(checksums)} files agree" if checksums else "not recorded",
        "weights": len(backbone.load_report.matched),
        "random": backbone.load_report.allowed,
        "unexpected": len(backbone.load_report.unexpected),
        "parameters": backbone.count_params(),
        "forward": "finite",
    }


def make_tiny(
    target: str | Path,
    family: str = "bert",
    seed: int = 0,
    vocab: Sequence[str] | str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Creates a small seeded model, of a text family with a small vocabulary, for tests and first steps.

    Raises:
        ModelError: The family is unknown or the folder exists.
    """
    if family not in catalogue.families():
        raise ModelError("unknown model family", received=family, accepted=sorted(catalogue.families()))
    config = family_module(family, "tiny").write_tiny(target, seed=seed, vocab=vocab, overwrite=overwrite)
    result = {"folder": str(target), "family": family, "seed": seed}
    result["parameters"] = family_module(family, "convert").parameters_in(target)
    return result | ({"vocab": config.vocab_size} if hasattr(config, "vocab_size") else {})
