"""What a model's name stands for: its family, configuration, network and tokenizer.

TensorFlow is imported only when a network is built. The core's Python API finds this module by its entry point.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from easytransfer.errors import ModelError
from easytransfer.presets import Preset, catalogue, resolve
from easytransfer.presets.folder import read_json

if TYPE_CHECKING:
    from easytransfer import keras
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


def load_backbone(name_or_path: str | Path, *, from_scratch: bool = False, **settings: Any) -> keras.Model:
    """Builds the network of a name or folder, of the family that it belongs to; TensorFlow is imported now.

    Args:
        name_or_path: See `Backbone.from_preset`.
        from_scratch: The same as `weights=False`, in the original's words.
        **settings: See `Backbone.from_preset`.

    Raises:
        ModelError: The model is not found, has no weights, or they do not fit.
        ConfigError: A setting is not accepted.

    Example:
        >>> load_backbone("minilm-l6-en", hidden_dropout_prob=0.0)
    """
    settings["weights"] = settings.get("weights", True) and not from_scratch
    preset = resolve(name_or_path, settings.pop("zoo", None))
    return family_module(family_of(preset), "backbone").BACKBONE_CLASS.from_preset(preset, **settings)


def load_tokenizer(
    name_or_path: str | Path, zoo: str | Path | None = None, lower_case: bool | None = None
) -> WordPiece:
    """Returns the tokenizer that belongs to a model: of the kind that its manifest or its family names.

    Args:
        name_or_path: Zoo name, alias or folder.
        zoo: Root of the ModelZoo.
        lower_case: Overrides the casing that the model's files state.

    Raises:
        ModelError: The model is not found, has no tokenizer or one of an unknown kind, or its vocabulary is not valid.
    """
    preset = resolve(name_or_path, zoo)
    family = family_of(preset)
    kind = preset.facts.get("tokenizer") or catalogue.families()[family].get("tokenizer")
    if kind is None:
        raise ModelError(f"models of the family {family} have no tokenizer", received=str(preset.folder))
    if not isinstance(kind, str) or kind not in TOKENIZERS:
        raise ModelError(f"{preset.folder} names an unknown tokenizer", received=kind, accepted=sorted(TOKENIZERS))
    # Google's folders do not say which casing they need; the catalogue does.
    silent = not (preset.folder / "tokenizer_config.json").is_file()
    if lower_case is None and silent:
        lower_case = preset.facts.get("lower_case")
    return TOKENIZERS[kind]().from_folder(preset.folder, lower_case=lower_case)


def _word_piece() -> type[WordPiece]:
    from easytransfer.text.wordpiece import WordPiece

    return WordPiece


# Classes by the name that `presets.json` and `zoo.json` give a tokenizer; each is imported when it is needed.
TOKENIZERS: dict[str, Callable[[], type[WordPiece]]] = {"WordPiece": _word_piece}
