"""Loads and saves pre-trained models of any family by name or folder. TensorFlow is imported when a model is built."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from easytransfer.errors import ModelError
from easytransfer.presets import Preset, catalogue, resolve
from easytransfer.presets.folder import read_json

if TYPE_CHECKING:
    from easytransfer import keras
    from easytransfer.distributed.collectives import Group
    from easytransfer.distributed.pipeline import Stage
    from easytransfer.text.wordpiece import WordPiece


def family_of(preset: Preset) -> str:
    """Returns the family that implements a model: the `model_type` of its config.json decides.

    Raises:
        ModelError: No family implements that type.
    """
    path = preset.folder / "config.json"
    model_type = read_json(path).get("model_type") if path.is_file() else None
    # Google's bert_config.json, and config.json files from before the key existed, describe BERT.
    model_type = model_type or preset.facts.get("type") or "bert"
    family = catalogue.family_of_type(str(model_type))
    if family is None:
        known = sorted(t for data in catalogue.families().values() for t in data["model_types"])
        fix = "see `easy_transfer_app zoo list` for models that can be used"
        raise ModelError(f"{path} has an unknown model_type", received=model_type, accepted=known, fix=fix)
    return family


def family_module(family: str, part: str) -> ModuleType:
    """Imports `modelzoo.<family>.<part>`: `config`, `formats`, `tiny` (light) or `backbone` (TensorFlow)."""
    return importlib.import_module(f"modelzoo.{family}.{part}")


def load_config(name_or_path: str | Path, zoo: str | Path | None = None) -> Any:
    """Returns the configuration of a model, of its family's own type, without loading the model.

    Raises:
        ModelError: The model is not found or its configuration is not valid.
    """
    preset = resolve(name_or_path, zoo)
    return family_module(family_of(preset), "config").CONFIG_CLASS.from_folder(preset.folder)


def load_backbone(
    name_or_path: str | Path,
    *,
    zoo: str | Path | None = None,
    weights: bool = True,
    from_scratch: bool = False,
    seed: int = 0,
    allow_missing: str | None = None,
    tensor: Group | None = None,
    stage: Stage | None = None,
    **overrides: Any,
) -> keras.Model:
    """Builds the backbone of a zoo name or folder with its pre-trained weights, which must fit completely.

    Args:
        name_or_path: Zoo name, alias, folder or TensorFlow checkpoint prefix.
        zoo: Root of the ModelZoo.
        weights: False for random weights of the same architecture; the folder then needs only a configuration.
        from_scratch: The same as `weights=False`, in the original's words.
        seed: Seed of random weights.
        allow_missing: Regular expression of weight names that may start from random values.
        tensor: Workers that split every encoder layer.
        stage: Part of the depth that this worker holds; None holds all.
        **overrides: Changed configuration values, such as `hidden_dropout_prob`.

    Raises:
        ModelError: The model is not found, has no weights, or they do not fit.
        ConfigError: An override is not accepted, or the layers cannot be split over so many workers.

    Example:
        >>> load_backbone("minilm-l6-en", hidden_dropout_prob=0.0)
    """
    preset = resolve(name_or_path, zoo)
    backbone = family_module(family_of(preset), "backbone").BACKBONE_CLASS
    return backbone.from_preset(
        preset,
        weights=weights and not from_scratch,
        seed=seed,
        allow_missing=allow_missing,
        tensor=tensor,
        stage=stage,
        **overrides,
    )


def load_tokenizer(
    name_or_path: str | Path, zoo: str | Path | None = None, lower_case: bool | None = None
) -> WordPiece:
    """Returns the tokenizer that belongs to a model.

    Args:
        name_or_path: Zoo name, alias or folder.
        zoo: Root of the ModelZoo.
        lower_case: Overrides the casing that the model's files state.

    Raises:
        ModelError: The model is not found or its vocabulary is not valid.
    """
    from easytransfer.text.wordpiece import WordPiece

    preset = resolve(name_or_path, zoo)
    # Google's folders do not say which casing they need; the catalogue does.
    silent = not (preset.folder / "tokenizer_config.json").is_file()
    if lower_case is None and silent:
        lower_case = preset.facts.get("lower_case")
    return WordPiece.from_folder(preset.folder, lower_case=lower_case)


def save_preset(
    folder: str | Path,
    backbone: keras.Model,
    tokenizer: WordPiece | None = None,
    *,
    facts: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a model folder that `load_backbone`, `load_tokenizer` and Hugging Face's transformers can read.

    Args:
        folder: New folder.
        backbone: Model to save.
        tokenizer: Its tokenizer; without it the folder has no vocabulary.
        facts: Entries of the manifest `zoo.json`, such as licence and origin.
        overwrite: Replace an existing folder.

    Raises:
        ModelError: The folder exists and `overwrite` is False.
    """
    name = Path(folder).name
    backbone.save_to_preset(folder, tokenizer, facts={"name": name, **(facts or {})}, overwrite=overwrite)
