"""Models of one's own before they have weights: a vocabulary trained on texts, and sizes, for a pre-training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from easytransfer.data.files import expand
from easytransfer.data.lines import plain_lines
from easytransfer.errors import DataError, ModelError
from easytransfer.presets import catalogue
from easytransfer.presets.folder import new_folder, write_json, write_manifest
from modelzoo.loading import family_module


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
        family: bert, albert or roberta.
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
    given = {name: value for name, value in sizes.items() if value is not None}
    if given.get("hidden_size") and "intermediate_size" not in given:
        given["intermediate_size"] = 4 * given["hidden_size"]
    with new_folder(target, overwrite) as draft:
        tokenizer = family_module(family, "vocabulary").trained(lambda: lines(texts), vocab_size, lower_case)
        if len(tokenizer) > vocab_size:
            raise ModelError(
                "too few pieces for special tokens and characters", received=vocab_size,
                accepted=f"{len(tokenizer)} or more", fix="raise vocab_size",
            )  # fmt: skip
        given |= {"model_type": family, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_id}
        config = family_module(family, "config").CONFIG_CLASS.from_dict(given).to_dict("hf")
        tokenizer.save(draft)
        write_json(draft / "config.json", config)
        facts = {"name": Path(target).name, "type": family, "vocab": len(tokenizer)}
        write_manifest(draft, {**facts, "origin": {"kind": "made", "how": "zoo new"}, "licence": None})
    return {"folder": str(target), "family": family, "vocab": len(tokenizer), "config": config}


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
