"""Downloads models of the Hugging Face hub into the cache of the hub's client, and checks what arrives.

Of a repository its configuration, tokenizer, model card and safetensors are taken, nothing else: other forms of weights
are pickles, which run code when they are read. All files are of one commit. The branch or tag points to that commit
only when everything is there, so an interrupted download is never taken for a model; files that had arrived are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.presets import Preset, catalogue, hub, resolve
from easytransfer.presets.archive import MAX_ENTRIES
from easytransfer.presets.download import MAX_BYTES
from easytransfer.presets.folder import MANIFEST
from easytransfer.presets.hub_client import Repository
from easytransfer.presets.preset import owner_of_name, repository_of
from easytransfer.presets.safetensors_file import INDEX, WEIGHTS, shards_of
from easytransfer.run.log import warn_once
from modelzoo.loading import family_module, family_of

CONFIG = "config.json"
# What a model may need besides its weights: of every family, tokenizers of every kind.
SMALL_FILES = (
    *(CONFIG, MANIFEST, "README.md", "generation_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
# The largest tokenizers in use are some tens of megabytes; these files are read whole.
MOST_SMALL_BYTES = 200 << 20
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")


def obtain(name_or_path: str | Path, zoo: str | Path | None = None, *, offline: bool = True) -> Preset:
    """Finds a model as `resolve` does, and downloads one of the hub that is not here yet where the network is allowed.

    Args:
        name_or_path: What the user typed; folders and names of the ModelZoo come before the hub.
        zoo: Root of the ModelZoo.
        offline: Never use the network.

    Raises:
        ModelError: The model is not here and cannot be downloaded.
        ResourceError: The cache cannot be written.
    """
    text = str(name_or_path).strip()
    model = repository_of(text)
    try:
        preset = resolve(text, zoo)
    except ModelError:
        if model is None or offline or (not model.explicit and owner_of_name(text, zoo)):
            raise
        download_model(model)
        return resolve(text, zoo)
    folder = hub.snapshot(model) if model else None
    if model is None or folder is None:
        return preset
    if preset.folder != folder:
        warn_once(f"{text} is taken for {preset.folder}; {hub.SCHEME}{text} is the model of the Hugging Face hub")
    elif not offline and hub.absent_weights(folder):
        return download_model(model)
    return preset


def fetch_model(model: hub.HubId, *, offline: bool = True) -> dict[str, Any]:
    """Downloads a model of the hub unless it is here, and returns what to tell the user.

    Raises:
        ModelError: Offline, no such repository or revision, no access, nothing that can be used, a wrong checksum.
        ResourceError: The cache cannot be written.
    """
    folder = hub.snapshot(model)
    present = folder is not None and not hub.absent_weights(folder)
    if offline and not present:
        raise ModelError(
            f"fetching {model} needs the network, which is switched off (offline)",
            fix="allow it with --offline=false, or name a folder with a copy of the model",
        )
    preset = resolve(str(model)) if present else download_model(model)
    files = sorted(path for path in preset.folder.iterdir() if path.is_file())
    return {
        "name": preset.name,
        "folder": str(preset.folder),
        "family": family_of(preset),
        "revision": preset.folder.name,
        "licence": preset.facts.get("licence"),
        "downloaded": not present,
        "files": {path.name: path.stat().st_size for path in files},
    }


def download_model(model: hub.HubId) -> Preset:
    """Downloads configuration, tokenizer and safetensors of a repository into the cache and checks them.

    Raises:
        ModelError: See `fetch_model`.
        ResourceError: The cache cannot be written.
    """
    repository = Repository(model)
    weights = _weights_of(repository)
    folder = repository.take([name for name in SMALL_FILES if name in repository.files], MOST_SMALL_BYTES)
    _check_family(model, folder)
    if weights == INDEX:
        repository.take([INDEX], MOST_SMALL_BYTES)
    repository.take([WEIGHTS] if weights == WEIGHTS else _shards(repository, folder), MAX_BYTES)
    # Last, so that the branch never stands for a model that is not whole.
    repository.note_revision()
    return resolve(str(model))


def _weights_of(repository: Repository) -> str:
    """Returns the name of the file of weights, or of the index of its shards."""
    model, files = repository.model, sorted(repository.files)
    shown = ", ".join(files[:8]) or "nothing"
    if CONFIG not in files:
        raise ModelError(f"{model} is no model: it has no {CONFIG}", received=shown, accepted=_families())
    for name in (WEIGHTS, INDEX):
        if name in files:
            return name
    pickled = [name for name in files if name.endswith(_PICKLED)]
    if not pickled:
        raise ModelError(f"{model} has no weights", received=shown, accepted=f"{WEIGHTS}, or {INDEX} with its shards")
    raise ModelError(
        f"{model} has its weights in forms only that can run code of strangers when they are read",
        received=", ".join(pickled[:4]),
        accepted=f"{WEIGHTS}, or {INDEX} with its shards",
        fix=f"take a revision with safetensors, such as one that was proposed on its page (hf://{model.id}@refs/pr/1); "
        "or, where you trust the author, load it with transformers elsewhere, save_pretrained(FOLDER), and name FOLDER",
    )


def _shards(repository: Repository, folder: Path) -> list[str]:
    """Returns the shards that a downloaded index names.

    Raises:
        ModelError: The index is not valid, or the repository lacks one of its shards.
    """
    names = shards_of(folder)
    wrong = [name for name in names if name not in repository.files or not name.endswith(".safetensors")]
    if wrong or not 0 < len(names) <= MAX_ENTRIES:
        raise ModelError(
            f"{INDEX} of {repository.model} does not fit the repository",
            received=", ".join(wrong[:4]) or f"{len(names)} shards",
            accepted=f"1 to {MAX_ENTRIES} files of the repository that end in .safetensors",
            fix="take another revision",
        )
    return names


def _check_family(model: hub.HubId, folder: Path) -> None:
    """Reads the configuration as the model's family does, before weights are downloaded."""
    try:
        family = family_of(Preset(model.id, folder, hub.facts_of(model, folder)))
        family_module(family, "config").CONFIG_CLASS.from_folder(folder)
    except ModelError as error:
        raise ModelError(f"{model} is of no family that can be loaded: {error}", accepted=_families()) from None


def _families() -> str:
    known = catalogue.families().items()
    return "models of " + ", ".join(f"{name} (model_type {', '.join(data['model_types'])})" for name, data in known)
