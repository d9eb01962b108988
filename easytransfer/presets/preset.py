"""From what a user types as a model (name, alias, folder, checkpoint) to a folder on this machine."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from easytransfer.config.paths import user_path
from easytransfer.errors import ModelError, closest
from easytransfer.installing import model_line
from easytransfer.presets import catalogue, hub
from easytransfer.presets.folder import MANIFEST, read_json

CONTRIB = "contrib_models.json"
MODELHUB = "modelhub"
# What file systems allow for a path and for one name in it.
_LONGEST_PATH, _LONGEST_NAME = 4096, 255


@dataclass(frozen=True)
class Preset:
    """A model that is present on this machine.

    Attributes:
        name: Canonical name, or the folder's name.
        folder: Folder with configuration, vocabulary and weights.
        facts: What presets.json and zoo.json say about it.
        checkpoint: TensorFlow checkpoint prefix inside the folder when one was named, else None.
    """

    name: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None


def default_zoo() -> Path:
    """Returns the root of the ModelZoo that is used when none is configured."""
    return Path.home() / ".eztransfer_modelzoo"


def resolve(name_or_path: str | Path, zoo: str | Path | None = None) -> Preset:
    """Finds a model.

    Accepted: a folder; the prefix of a TensorFlow checkpoint; a built-in name or alias; a folder name inside the
    zoo; an alias of the zoo's `contrib_models.json`; `modelhub:<name>`; `hf://<owner>/<name>@<revision>` of the Hugging
    Face hub, or `<owner>/<name>` that is none of the others, where it was downloaded before (the network is not used).

    Args:
        name_or_path: What the user typed.
        zoo: Root of the ModelZoo; `$HOME/.eztransfer_modelzoo` when None.

    Raises:
        ModelError: Nothing of that name is present; the message names the closest ones or how to get it.
    """
    text = str(name_or_path).strip()
    root = user_path(zoo) if zoo else default_zoo()
    if not text:
        raise ModelError("the model name is empty", fix="give a name of the ModelZoo or a folder")
    if len(text) > _LONGEST_PATH:
        raise ModelError(f"no model has a name of {len(text)} characters", received=text[:_LONGEST_NAME])
    model = hub.parse(text)
    preset = None
    if model is None or not model.explicit:
        preset = _from_path(text) or _from_modelhub(text, root) or _from_zoo(text, root)
    preset = preset or _from_hugging_face(model)
    if preset is None:
        raise _not_found(text, root, model)
    return preset


def zoo_folders(root: Path) -> dict[str, Path]:
    """Returns the model folders of a zoo by name: `<zoo>/<name>`, `<zoo>/<type>/<name>`, `modelhub:<name>`."""
    found = {}
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        if _is_model(path) and not path.name.startswith("."):
            found[f"{MODELHUB}:{path.name}" if path.parent.name == MODELHUB else path.name] = path
    return found


def contrib_models(root: Path) -> dict[str, str]:
    """Returns the extra aliases of a zoo with the paths they stand for."""
    path = root / CONTRIB
    return {str(k): str(v) for k, v in read_json(path).items()} if path.is_file() else {}


def fetch_line(name: str) -> str:
    """Returns the command line that downloads a known model into the zoo."""
    return f"easy_transfer_app zoo fetch {name} --offline=false"


def package_folder(origin: dict[str, Any]) -> Path | None:
    """Returns the model folder of an installed Python package, found without importing it; None where it has none."""
    if "folder" not in origin:
        return None
    spec = importlib.util.find_spec(origin["module"])
    for place in (spec.submodule_search_locations or []) if spec else []:
        if _is_model(Path(place, origin["folder"])):
            return Path(place, origin["folder"])
    return None


def _is_model(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in catalogue.config_names())


def _of_folder(folder: Path, facts: dict[str, Any] | None = None, checkpoint: str | None = None) -> Preset:
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    facts = {**(facts or {}), **manifest}
    return Preset(facts.get("name") or folder.resolve().name, folder, facts, checkpoint)


def _from_path(text: str) -> Preset | None:
    path = user_path(text)
    if os.path.isdir(path) and _is_model(path):
        return _of_folder(path)
    # The original takes the prefix of a checkpoint, such as folder/model.ckpt.
    if os.path.isfile(f"{path}.index"):
        return _of_folder(path.parent, checkpoint=path.name)
    looks_like_path = text.startswith((".", "/", "~")) or text.endswith("/")
    if os.path.isdir(path) and (looks_like_path or not catalogue.find(text)):
        content = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{path} is not a model folder", received=content, accepted=f"a folder with {catalogue.config_names()[0]}"
        )
    if looks_like_path:
        raise ModelError(f"no model at {path}", fix="check the path; for zoo names leave out the leading folders")
    return None


def _from_modelhub(text: str, root: Path) -> Preset | None:
    if not text.startswith((f"{MODELHUB}:", f"{MODELHUB}/")):
        return None
    name = text[len(MODELHUB) + 1 :]
    folder = root / MODELHUB / name
    if Path(name).name == name and name not in ("", ".", "..") and _is_model(folder):
        return _of_folder(folder)
    return None


def _from_zoo(text: str, root: Path) -> Preset | None:
    facts = catalogue.find(text)
    if facts:
        places = [root / facts["type"] / facts["name"], root / facts["name"]]
        if facts["origin"]["kind"] == "python-package":
            places.append(package_folder(facts["origin"]))
        for folder in places:
            if folder and _is_model(folder):
                return _of_folder(folder, facts)
        if preset := _from_hugging_face(hub.of_origin(facts["origin"])):
            return replace(preset, name=facts["name"], facts={**facts, **preset.facts})
    contrib = contrib_models(root)
    if text in contrib:
        return _from_path(str(root / user_path(contrib[text])))
    folder = zoo_folders(root).get(text)
    return _of_folder(folder) if folder else None


def _from_hugging_face(model: hub.HubId | None) -> Preset | None:
    folder = hub.snapshot(model) if model else None
    if model is None or folder is None:
        return None
    return Preset(model.id, folder, {**_of_folder(folder).facts, **hub.facts_of(model, folder)})


def repository_of(text: str) -> hub.HubId | None:
    """Returns the repository of the hub that a text stands for, also that of a known name whose model lies there.

    Raises:
        ModelError: It begins with `hf://` and does not go on as a repository.
    """
    model = hub.parse(text)
    known = None if model and model.explicit else catalogue.find(text)
    return (hub.of_origin(known["origin"]) if known else None) or model


def owner_of_name(text: str, zoo: str | Path | None = None) -> str | None:
    """Returns what a text stands for before it is looked for on the hub: words for a message, None for nothing."""
    root = user_path(zoo) if zoo else default_zoo()
    if (path := user_path(text)).exists():
        return f"the folder {path}"
    if facts := catalogue.find(text):
        return f"{facts['name']} of the ModelZoo"
    if text.startswith(f"{MODELHUB}/") or text in contrib_models(root):
        return f"a model of the ModelZoo in {root}"
    return None


def _not_found(text: str, root: Path, model: hub.HubId | None) -> ModelError:
    facts = None if model and model.explicit else catalogue.find(text)
    if facts is not None:
        return _absent(facts, root, model)
    if model and model.explicit:
        return ModelError(
            f"{model} has not been downloaded to this machine",
            fix=f"`easy_transfer_app zoo fetch {model} --offline=false`; it is then found in {hub.cache_folder()}",
        )
    known = [*catalogue.entries(), *zoo_folders(root), *contrib_models(root)]
    near = closest(text, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `easy_transfer_app zoo list`."
    if model:
        fetch = f"`easy_transfer_app zoo fetch {model} --offline=false`"
        hint += f" A model of the Hugging Face hub is downloaded first: {fetch}."
    return ModelError(
        f"unknown model {text}", fix=f"{hint} A folder of your own is given by its path, such as ./{text}"
    )


def _absent(facts: dict[str, Any], root: Path, model: hub.HubId | None) -> ModelError:
    name, origin = facts["name"], facts["origin"]
    if origin["kind"] in ("python-package", "file"):
        fix = f"get it with `{fetch_line(name)}`"
        if "folder" in origin:
            fix += f", or install it with: {model_line(origin['package'])}"
    elif origin["kind"] == "hub":
        fix = f"get it with `{fetch_line(name)}` or name a folder with a copy; it is then found in {hub.cache_folder()}"
        model = None  # its name on the hub means the same
    else:
        fix = (
            f"put it into {root / facts['type'] / name}, import a copy with `easy_transfer_app zoo import`, "
            f"or download it with `easy_transfer_app zoo fetch {name}`"
        )
    if model:
        fix += f"; the hub's own repository of that name is {hub.SCHEME}{model.id}"
    return ModelError(f"model {name} is known but not on this machine", fix=fix)
