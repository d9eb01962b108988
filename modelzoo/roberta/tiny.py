"""A seeded RoBERTa with two small layers and a small vocabulary of one of its two kinds, for tests and first steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from easytransfer.errors import ModelError
from easytransfer.text.bpe_model import BYTE_SYMBOLS, BpeFiles
from easytransfer.text.byte_level_bpe import ByteLevelBpe
from easytransfer.text.piece_model import PUBLISHED_FIRST, fairseq_order
from easytransfer.text.sentence_piece import XlmRobertaSentencePiece
from modelzoo.encoder_weights import initial_value
from modelzoo.roberta import formats
from modelzoo.roberta.config import XLM, RobertaConfig
from modelzoo.roberta.convert import ROBERTA
from modelzoo.tiny_pieces import chosen_model
from modelzoo.tiny_words import CJK, WORDS

# RoBERTa's first ids; its mask is the last one.
_FIRST = ["<s>", "<pad>", "</s>", "<unk>"]
# More than the pieces of any words: every one is merged whole.
_MOST = 1 << 20


def tiny_bpe(words: Sequence[str] = (*WORDS, *CJK)) -> BpeFiles:
    """Returns a vocabulary of all bytes and of merges that make one piece of each word, also behind a space.

    Args:
        words: Words without spaces.

    Example:
        >>> tiny_bpe(["good"])
    """
    return trained_bpe([*words, *(f" {word}" for word in words)], _MOST, min_frequency=1)


def trained_bpe(texts: Iterable[str], size: int, min_frequency: int = 2) -> BpeFiles:
    """Returns a vocabulary of all bytes and of the merges that most pairs of pieces of the texts ask for.

    Args:
        texts: Lines.
        size: Pieces, special ones included; at least all bytes are there.
        min_frequency: Pairs that are rarer are not merged.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,  # the mask comes last
        min_frequency=min_frequency,
        special_tokens=_FIRST,
        initial_alphabet=BYTE_SYMBOLS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocab = tokenizer.get_vocab()
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    return BpeFiles([*sorted(vocab, key=vocab.__getitem__), "<mask>"], merges)


def write_tiny(
    target: str | Path,
    *,
    seed: int = 0,
    vocab: Sequence[str] | str | Path | None = None,
    overwrite: bool = False,
    model_type: str = "roberta",
) -> RobertaConfig:
    """Writes the model with the head of masked words as a preset folder.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Words, or a folder with `vocab.json` and `merges.txt` or `tokenizer.json`; `tiny_bpe()` when None. Of
            an XLM-RoBERTa pieces without the special tokens, or a SentencePiece model as it was published, or a folder
            with one; `tiny_pieces` when None.
        overwrite: Replace an existing folder.
        model_type: `xlm-roberta` for one with the pieces of a SentencePiece model.

    Returns:
        The configuration.

    Raises:
        ModelError: `vocab` is none of these, or the folder exists.
    """
    tokenizer = _pieces(vocab) if model_type == XLM else _tokenizer(vocab)
    config = RobertaConfig(
        model_type=model_type,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128 + tokenizer.pad_id + 1,
        pad_token_id=tokenizer.pad_id,
    )
    values = {row.name: initial_value(row, seed, config.initializer_range) for row in ROBERTA.table(config)}
    facts = {"name": Path(target).name, "type": model_type, "language": "en, zh", "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    formats.write_folder(target, "hf", config, values, tokenizer=tokenizer, facts=facts, overwrite=overwrite)
    return config


def _pieces(vocab: Sequence[str] | str | Path | None) -> XlmRobertaSentencePiece:
    model = chosen_model(vocab, PUBLISHED_FIRST, cased=True)
    return XlmRobertaSentencePiece(fairseq_order(model, str(vocab)))


def _tokenizer(vocab: Sequence[str] | str | Path | None) -> ByteLevelBpe:
    if vocab is None:
        return ByteLevelBpe(tiny_bpe())
    if not isinstance(vocab, str | Path):
        return ByteLevelBpe(tiny_bpe(vocab))
    if not Path(vocab).is_dir():
        raise ModelError(f"no folder {vocab}", accepted="a folder with vocab.json and merges.txt, or tokenizer.json")
    return ByteLevelBpe.from_folder(vocab)
