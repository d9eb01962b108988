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
    from easytransfer.text.tokenizer import Tokenizer


def family_of(preset: Preset) -> str:
    """Returns the family that implements a model: the `model_type` of its config.json decides.

    Raises:
        ModelError: No family implements that type.
    """
    path = preset.folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    model_type = config.get("model_type") or catalogue.type_of_config(config)
    # Google's files do not say it but by their names; config.json files from before the key existed describe BERT.
    model_type = model_type or preset.facts.get("type") or catalogue.type_of_files(preset.folder) or "bert"
    family = catalogue.family_of_type(str(model_type), config)
    if family is None:
        known = sorted({t for data in catalogue.families().values() for t in data["model_types"]})
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
) -> Tokenizer:
    """Returns the tokenizer that belongs to a model: of the kind that its manifest or its family names.

    Args:
        name_or_path: Zoo name, alias or folder.
        zoo: Root of the ModelZoo.
        lower_case: Overrides the casing that the model's files state.

    Raises:
        ModelError: The model is not found, has no tokenizer or one of an unknown kind, or its vocabulary is not valid.
    """
    preset = resolve(name_or_path, zoo)
    kind = tokenizer_class(preset)
    # Google's folders do not say which casing they need; the catalogue does.
    silent = not (preset.folder / "tokenizer_config.json").is_file()
    if lower_case is None and silent:
        lower_case = preset.facts.get("lower_case")
    return kind.from_folder(preset.folder, lower_case=lower_case)


def tokenizer_class(preset: Preset) -> type[Tokenizer]:
    """Returns the kind of tokenizer of a model.

    Its manifest or catalogue entry names it; else it is the first of its family's kinds whose vocabulary is there.

    Raises:
        ModelError: The family has no tokenizer, or the model names one that is not known.
    """
    family = family_of(preset)
    kinds = (
        [preset.facts["tokenizer"]] if preset.facts.get("tokenizer") else catalogue.families()[family].get("tokenizers")
    )
    if not kinds:
        raise ModelError(f"models of the family {family} have no tokenizer", received=str(preset.folder))
    for kind in kinds:
        if not isinstance(kind, str) or kind not in TOKENIZERS:
            raise ModelError(f"{preset.folder} names an unknown tokenizer", received=kind, accepted=sorted(TOKENIZERS))
    classes = [TOKENIZERS[kind]() for kind in kinds]
    return next((found for found in classes[:-1] if found.is_in(preset.folder)), classes[-1])


def _word_piece() -> type[Tokenizer]:
    from easytransfer.text.wordpiece import WordPiece

    return WordPiece


def _sentence_piece() -> type[Tokenizer]:
    from easytransfer.text.sentence_piece import SentencePiece

    return SentencePiece


def _xlnet_sentence_piece() -> type[Tokenizer]:
    from easytransfer.text.sentence_piece import XlnetSentencePiece

    return XlnetSentencePiece


def _xlm_roberta_sentence_piece() -> type[Tokenizer]:
    from easytransfer.text.sentence_piece import XlmRobertaSentencePiece

    return XlmRobertaSentencePiece


def _byte_level_bpe() -> type[Tokenizer]:
    from easytransfer.text.byte_level_bpe import ByteLevelBpe

    return ByteLevelBpe


# Classes by the name that `presets.json` and `zoo.json` give a tokenizer; each is imported when it is needed.
TOKENIZERS: dict[str, Callable[[], type[Tokenizer]]] = {
    "ByteLevelBpe": _byte_level_bpe,
    "SentencePiece": _sentence_piece,
    "WordPiece": _word_piece,
    "XlmRobertaSentencePiece": _xlm_roberta_sentence_piece,
    "XlnetSentencePiece": _xlnet_sentence_piece,
}
