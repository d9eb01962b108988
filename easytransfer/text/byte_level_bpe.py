"""Byte-level BPE as GPT-2 and RoBERTa use it, over `tokenizers`: the path for training and prediction.

`easytransfer.text.byte_level_bpe_graph` gives the same ids inside a TensorFlow graph, for serving.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from easytransfer.data.encoded import Ragged
from easytransfer.errors import ModelError
from easytransfer.text.bpe_model import (
    BYTE_SYMBOLS,
    MERGES_FILE,
    SPACE,
    VOCAB_FILE,
    BpeFiles,
    check_bpe,
    holds_bpe,
    merges_text,
    read_bpe,
    tokenizer_config,
)
from easytransfer.text.chunks import ChunkBank
from easytransfer.text.packing import SEP_TWICE, Layout
from easytransfer.text.piece_model import CONFIG_FILE
from easytransfer.text.tokenizer import Tokenizer, not_a_text, write_file
from easytransfer.text.word_runs import WHITE, character_kinds

if TYPE_CHECKING:
    from easytransfer.text.byte_level_bpe_graph import GraphByteLevelBpe

# Said explicitly, so that `tokenizers` neither guesses nor warns when a process forks after using its threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# Rows tokenized at a time: bounds the Python strings alive at once.
ROWS_AT_A_TIME = 8192
# A space before what is none begins a word whatever stands before it. Python knows more white space than the pattern of
# GPT-2, so that it cuts at some of these places, never at others.
_CHUNKS = re.compile(r"(?= \S)")
_BYTES = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


class ByteLevelBpe(Tokenizer):
    """Turns text into the ids of byte pairs (Sennrich et al. 2016, arXiv 1508.07909; on bytes, Radford et al. 2019).

    A text is split into runs of letters, digits, other characters and white space, each with the space before it, and
    English endings such as 's; the bytes of each are merged in the order of the merges. No text is unknown. Names of
    special tokens inside the text are ordinary text. Ids are those of `transformers`' RobertaTokenizer with
    `split_special_tokens=True`.

    A pair is `<s> a </s></s> b </s>`, of one segment: RoBERTa does not tell texts apart (Liu et al. 2019, arXiv
    1907.11692, section 4.2).

    Args:
        files: Vocabulary, merges and rules.

    Raises:
        ModelError: They do not fit together.

    Example:
        >>> tokenizer = ByteLevelBpe.from_folder("roberta-base")
        >>> tokenizer.tokenize("Hello world")
        ['Hello', 'Ġworld']
    """

    layout: ClassVar[Layout] = SEP_TWICE

    def __init__(self, files: BpeFiles) -> None:
        check_bpe(files, "the vocabulary")
        super().__init__(files.vocab, files.special)
        self.bpe = files
        ids = {token: number for number, token in enumerate(self.vocab)}
        self._tokenizer = tokenizers.Tokenizer(models.BPE(ids, [tuple(merge) for merge in files.merges]))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bank = ChunkBank(self._encode_chunks, split=_CHUNKS.split)

    @classmethod
    def from_folder(cls, folder: str | Path, lower_case: bool | None = None) -> ByteLevelBpe:
        """Loads the tokenizer of a model folder; see `read_bpe` for the files and the errors."""
        if lower_case:
            raise ModelError("byte-level BPE knows both cases and has no rule to lower them", fix="leave lower_case")
        return cls(read_bpe(folder))

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """See `Tokenizer`."""
        return holds_bpe(folder)

    @property
    def files(self) -> tuple[str, ...]:
        """See `Tokenizer`."""
        return VOCAB_FILE, MERGES_FILE, CONFIG_FILE

    @property
    def digest(self) -> str:
        """See `Tokenizer`."""
        facts = [self.vocab, list(self.bpe.merges), self.bpe.add_prefix_space, self.bpe.special]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def continues(self) -> np.ndarray:
        """See `Tokenizer`."""
        return np.array([not piece.startswith(SPACE) for piece in self.vocab])

    def pieces(self, texts: Sequence[str]) -> Ragged:
        """See `Tokenizer`."""
        return self._pieces(texts, self.bpe.add_prefix_space)

    def word_pieces(self, words: Sequence[str]) -> Ragged:
        """See `Tokenizer`: with a space before each, as `transformers` does where `is_split_into_words`."""
        return self._pieces(words, True)

    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """See `Tokenizer`; white space around a piece does not belong to it, and every piece of a character has it."""
        ids, given = self.pieces(texts), list(texts)
        texts = _with_space(given) if self.bpe.add_prefix_space else given
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        ends = np.cumsum(1 + (codes[:, None] >= [0x80, 0x800, 0x10000]).sum(1))
        behind = np.cumsum(self._lengths[ids.values])
        begin = np.searchsorted(ends, behind - self._lengths[ids.values], side="right")
        end = np.searchsorted(ends, behind, side="left") + 1
        words = np.flatnonzero(character_kinds().of(codes) != WHITE)
        begin = np.minimum(np.append(words, len(codes))[np.searchsorted(words, begin)], end)
        end = np.maximum(np.append(-1, words)[np.searchsorted(words, end)] + 1, begin)
        # Where the text as it was given begins among the characters of all.
        first = np.cumsum([0, *map(len, texts)], dtype=np.int64)[:-1]
        added = np.fromiter(map(len, texts), np.int64) - np.fromiter(map(len, given), np.int64)
        origin = np.repeat(first + added, ids.lengths)
        spans = np.maximum(np.stack([begin, end], axis=1) - origin[:, None], 0).astype(np.int32)
        return ids, Ragged(spans, ids.offsets)

    def in_graph(self, max_length: int = 128, folder: Path | None = None) -> GraphByteLevelBpe:
        """See `Tokenizer`; the graph holds the merges themselves and needs no files."""
        from easytransfer.text.byte_level_bpe_graph import GraphByteLevelBpe

        return GraphByteLevelBpe(self.bpe, self.special_ids, max_length)

    def join(self, pieces: Sequence[str]) -> str:
        """See `Tokenizer`."""
        text = b"".join(_spelled(piece) for piece in pieces).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.bpe.add_prefix_space else text

    def save(self, folder: str | Path) -> None:
        """Writes `vocab.json`, `merges.txt` and `tokenizer_config.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        ids = {piece: number for number, piece in enumerate(self.vocab)}
        write_file(folder / VOCAB_FILE, json.dumps(ids, ensure_ascii=False) + "\n")
        write_file(folder / MERGES_FILE, merges_text(self.bpe.merges))
        write_file(folder / CONFIG_FILE, json.dumps(tokenizer_config(self.bpe), indent=2) + "\n")

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Bytes of every piece, int64 [vocabulary]; no text is spelled with another than those of bytes."""
        return np.array([len(piece) for piece in self.vocab])

    def _pieces(self, texts: Sequence[str], prefix: bool) -> Ragged:
        parts = []
        for at in range(0, len(texts), ROWS_AT_A_TIME):
            part = list(texts[at : at + ROWS_AT_A_TIME])
            try:
                parts.append(self._bank.rows(_with_space(part) if prefix else part))
            except (AttributeError, TypeError, UnicodeEncodeError) as error:
                if (refused := not_a_text(part)) is not None:
                    raise refused from error
                raise
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        return Ragged(np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)]), np.cumsum(lengths))

    def _encode_chunks(self, chunks: list[str]) -> list[list[int]]:
        return [part.ids for part in self._tokenizer.encode_batch_fast(chunks, add_special_tokens=False)]


def _with_space(texts: list[str]) -> list[str]:
    """Puts a space before texts that begin with none; a text of nothing stays one."""
    return [text if not text or text.startswith(" ") else f" {text}" for text in texts]


def _spelled(piece: str) -> bytes:
    """Returns the bytes of a piece; a special token is its own name."""
    return bytes(map(_BYTES.__getitem__, piece)) if all(map(_BYTES.__contains__, piece)) else piece.encode()
