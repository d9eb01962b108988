"""What `easy_transfer_app zoo` does: list, show, verify, import, export, fetch and make-tiny.

Every function returns a JSON-able dict (or a list of them). Listing and showing import no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.presets import Preset, catalogue, hub, resolve
from easytransfer.presets.folder import check_files
from easytransfer.presets.preset import owner_of_name, repository_of
from easytransfer.run.log import warn_once
from modelzoo.fetch import fetch as fetch_known
from modelzoo.hub import fetch_model
from modelzoo.importing import export_model, forward, import_model
from modelzoo.listing import example, list_models, show
from modelzoo.loading import family_module
from modelzoo.making import new

__all__ = ["example", "export_model", "fetch", "import_model", "list_models", "make_tiny", "new", "show", "verify"]

# Types of models, beside the names of families, of which `make_tiny` makes one -> family.
_OTHER_TYPES = {"xlm-roberta": "roberta"}


def verify(name: str, zoo: str | Path | None = None, allow_missing: str | None = None) -> dict[str, Any]:
    """Checks a model that is present: checksums, that all weights fit, and a forward pass.

    Raises:
        ModelError: A check failed; the message says which.
    """
    preset = resolve(name, zoo)
    checked, problems = _of_hub(preset) if preset.facts.get("origin", {}).get("kind") == "hub" else _recorded(preset)
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
        "checksums": f"{checked} files agree" if checked else "not recorded",
        "weights": len(backbone.load_report.matched),
        "random": backbone.load_report.allowed,
        "unexpected": len(backbone.load_report.unexpected),
        "parameters": backbone.count_params(),
        "forward": "finite",
    }


def _recorded(preset: Preset) -> tuple[int, list[str]]:
    """Returns how many files have a recorded checksum, and what is wrong with them."""
    checksums = {file: entry["sha256"] for file, entry in preset.facts.get("files", {}).items()}
    # The checksums of presets.json hold for the published files, those of zoo.json for this very folder.
    checksums = checksums or preset.facts.get("sha256") or {}
    return len(checksums), check_files(preset.folder, checksums)


def _of_hub(preset: Preset) -> tuple[int, list[str]]:
    """Returns the same by the checksums that the hub gave for the files of a snapshot."""
    checksums = hub.checksums(preset.folder)
    actual = {file: hub.digest(preset.folder / file, expected) for file, expected in checksums.items()}
    wrong = [file for file, expected in checksums.items() if actual[file] != expected]
    return len(checksums), [
        f"{file} has {actual[file][:12]}..., the hub had {checksums[file][:12]}..." for file in wrong
    ]


def fetch(
    name: str,
    zoo: str | Path | None = None,
    url: str | Sequence[str] | None = None,
    sha256: str | None = None,
    offline: bool = True,
) -> dict[str, Any]:
    """Downloads a model that is known by name into the zoo, or one of the Hugging Face hub into the hub's cache.

    Args:
        name: Zoo name or alias, `hf://owner/name@revision`, or `owner/name` that is none of the zoo.
        zoo: Root of the ModelZoo.
        url: Address of the archive of a known model, or several mirrors; see `modelzoo.fetch.fetch`.
        sha256: Expected SHA-256 of that archive.
        offline: Refuse to use the network.

    Raises:
        ModelError: See `modelzoo.fetch.fetch` and `modelzoo.hub.fetch_model`.
        ResourceError: Zoo or cache cannot be written.
    """
    model = repository_of(name)
    owner = None if model is None or model.explicit else owner_of_name(name, zoo)
    if model is None or owner:
        if model and catalogue.find(name):
            warn_once(f"{name} is taken for {owner}; {hub.SCHEME}{name} is the model of the Hugging Face hub")
        elif model:
            raise ModelError(f"{name} is {owner}: nothing to fetch", fix=f"the hub's model is {hub.SCHEME}{name}")
        return fetch_known(name, zoo, url, sha256, offline)
    if url or sha256:
        raise ModelError(
            f"{model} is fetched from the hub that HF_ENDPOINT names and checked by the hub's checksums",
            fix="leave out --url and --sha256",
        )
    return fetch_model(model, offline=offline)


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
    owner = family if family in catalogue.families() else _OTHER_TYPES.get(family)
    if owner is None:
        known = sorted([*catalogue.families(), *_OTHER_TYPES])
        raise ModelError("unknown model family", received=family, accepted=known)
    kind = {} if owner == family else {"model_type": family}
    config = family_module(owner, "tiny").write_tiny(target, seed=seed, vocab=vocab, overwrite=overwrite, **kind)
    result = {"folder": str(target), "family": family, "seed": seed}
    result["parameters"] = family_module(owner, "convert").parameters_in(target)
    return result | ({"vocab": config.vocab_size} if hasattr(config, "vocab_size") else {})
