"""Models of one's own before they have weights: a vocabulary trained on texts, and sizes, for a pre-training."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from easytransfer.data.files import expand
from easytransfer.data.lines import plain_lines
from easytransfer.errors import DataError, ModelError
from easytransfer.presets import catalogue
from easytransfer.presets.folder import new_folder, write_json, write_manifest
from easytransfer.text.tokenizer import Tokenizer
from modelzoo.encoder_config import EncoderConfig
from modelzoo.loading import family_module, load_tokenizer

# What the vocabulary of a family is called in its folders.
_VOCABULARY_FILES = {"bert": "vocab.txt", "albert": "30k-clean.model"}


def new(
    target: str | Path,
    texts: str | Sequence[str],
    family: str = "bert",
    vocab_size: int = 8000,
    lower_case: bool = False,
    overwrite: bool = False,
    **sizes: int | None,
) -> dict[str, Any]:
    """Writes a model folder without weights: the tokenizer that texts give, and the configuration of a network.

    An application reads it with `from_scratch`. Equal texts give equal files.

    Args:
        target: New folder.
        texts: Text files, a sentence a line, as a table of a training is named.
        family: bert, albert, roberta or t5.
        vocab_size: Pieces of the vocabulary, special ones included.
        lower_case: Whether all text is lower-cased.
        overwrite: Replace an existing folder.
        sizes: `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size`,
            `max_position_embeddings`; None leaves what the family has.

    Returns:
        The folder, the pieces that were found, which may be fewer, and the configuration.

    Raises:
        ModelError: The family cannot be made, the sizes do not fit, or the folder exists.
        DataError: The texts are none, or too few for a vocabulary.
    """
    known = [name for name in catalogue.families() if _has_vocabulary(name)]
    if family not in known:
        raise ModelError("no vocabulary can be trained for this family", received=family, accepted=known)
    tokenizer = family_module(family, "vocabulary").trained(lambda: lines(texts), vocab_size, lower_case)
    if len(tokenizer) > vocab_size:
        raise ModelError(
            "too few pieces for special tokens and characters", received=vocab_size,
            accepted=f"{len(tokenizer)} or more", fix="raise vocab_size",
        )  # fmt: skip
    return _written(target, family, tokenizer, sizes, overwrite, "zoo new")


def with_vocabulary(
    target: str | Path, vocabulary: str | Path, family: str, overwrite: bool = False, **sizes: int | None
) -> dict[str, Any]:
    """Writes a model folder without weights from a vocabulary that is there; see `new`.

    Args:
        target: New folder.
        vocabulary: `vocab.txt` of a BERT, lower-cased, or the SentencePiece model of an ALBERT.
        family: bert or albert.
        overwrite: Replace an existing folder.
        sizes: See `new`; also `embedding_size` of an ALBERT.

    Raises:
        ModelError: The family or the vocabulary is none of these, the sizes do not fit, or the folder exists.
    """
    if family not in _VOCABULARY_FILES:
        raise ModelError("unknown model_type", received=family, accepted=list(_VOCABULARY_FILES))
    if not Path(vocabulary).is_file():
        raise ModelError(f"the vocabulary {vocabulary} does not exist")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(vocabulary, Path(folder, _VOCABULARY_FILES[family]))
        write_json(Path(folder, "config.json"), {"model_type": family})
        tokenizer = load_tokenizer(folder, lower_case=True)
    return _written(target, family, tokenizer, sizes, overwrite, "ez_pretrain")


def _written(
    target: str | Path, family: str, tokenizer: Tokenizer, sizes: Mapping[str, int | None], overwrite: bool, how: str
) -> dict[str, Any]:
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if given.get("hidden_size") and "intermediate_size" not in given:
        given["intermediate_size"] = 4 * given["hidden_size"]
    with new_folder(target, overwrite) as draft:
        named = getattr(family_module(family, "vocabulary"), "settings", _settings)
        config = family_module(family, "config").CONFIG_CLASS.from_dict(
            {"model_type": family, **named(given, tokenizer)}
        )
        tokenizer.save(draft)
        stored = config.to_dict("hf") if isinstance(config, EncoderConfig) else config.to_dict()
        write_json(draft / "config.json", stored)
        facts = {"name": Path(target).name, "type": family, "vocab": len(tokenizer)}
        write_manifest(draft, {**facts, "origin": {"kind": "made", "how": how}, "licence": None})
    return {"folder": str(target), "family": family, "vocab": len(tokenizer), "config": stored}


def _settings(sizes: Mapping[str, int], tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the configuration of an encoder."""
    return {**sizes, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_id}


def lines(texts: str | Sequence[str]) -> Iterator[str]:
    """Yields the lines of text files one after the other, empty ones left out.

    Raises:
        DataError: A file is no UTF-8 text, has a line that is too long, or there is no line at all.
    """
    some = False
    for file in expand(texts):
        try:
            for number, line, problem in plain_lines(file):
                if problem:
                    raise DataError(f"{file}:{number}: {problem[1]}", fix="convert the file to UTF-8")
                if line:
                    some = True
                    yield line
        except ValueError as error:
            raise DataError(str(error)) from None
    if not some:
        raise DataError("no text to train a vocabulary on", received=str(texts), accepted="text files with lines")


def _has_vocabulary(family: str) -> bool:
    try:
        family_module(family, "vocabulary")
    except ModuleNotFoundError:
        return False
    return True
