"""Trains a WordPiece vocabulary (Schuster and Nakajima 2012; as of BERT, arXiv 1810.04805, section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from easytransfer.text.vocabulary import SPECIAL_TOKENS, UNK, Rules
from easytransfer.text.wordpiece import WordPiece, bert_normalizer


def trained(texts: Callable[[], Iterable[str]], size: int, lower_case: bool) -> WordPiece:
    """Returns a tokenizer of at most `size` pieces, special tokens first; the same for the same texts.

    Args:
        texts: Gives the lines, each time anew.
        size: Pieces.
        lower_case: Lower-case them and drop accents.
    """
    rules = Rules(lower_case=lower_case)
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = bert_normalizer(rules), pre_tokenizers.BertPreTokenizer()
    alphabet = _alphabet(texts(), tokenizer.normalizer, size // 2)
    # The library numbers pieces within words by chance and breaks ties by number, unless they have one before.
    inside = [f"##{character}" for character in alphabet if not _is_alone(character, tokenizer.normalizer)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *inside],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    vocab = tokenizer.get_vocab()
    return WordPiece(sorted(vocab, key=vocab.__getitem__), rules)


def _alphabet(texts: Iterable[str], normalizer: normalizers.Normalizer, most: int) -> list[str]:
    """Returns the most frequent characters, by code point."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    kept = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))[:most]
    return sorted(kept)


def _is_alone(character: str, normalizer: normalizers.Normalizer) -> bool:
    """Returns whether a character is a word of its own, as ideographs are."""
    return normalizer.normalize_str(character) != character
