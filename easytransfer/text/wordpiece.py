"""BERT's WordPiece tokenizer over `tokenizers`, batched and multi-threaded: the path for training and prediction.

`easytransfer.text.wordpiece_graph` gives the same ids inside a TensorFlow graph, for serving.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
from tokenizers import Encoding, decoders, models, pre_tokenizers

from easytransfer.data.encoded import Ragged
from easytransfer.errors import ModelError
from easytransfer.text.characters import bert_normalizer
from easytransfer.text.chunks import ChunkBank
from easytransfer.text.tokenizer import Tokenizer, not_a_text, write_file
from easytransfer.text.vocabulary import (
    SPECIAL_TOKENS,
    UNK,
    Rules,
    check_vocabulary,
    read_vocabulary,
    tokenizer_config,
)

if TYPE_CHECKING:
    from easytransfer.text.wordpiece_graph import GraphWordPiece

# Said explicitly, so that `tokenizers` neither guesses nor warns when a process forks after using its threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

VOCAB_FILE, CONFIG_FILE = "vocab.txt", "tokenizer_config.json"

# Rows tokenized at a time: bounds the Python strings alive at once.
ROWS_AT_A_TIME = 8192


class WordPiece(Tokenizer):
    """Turns text into BERT piece ids.

    The text is cleaned of control characters, CJK ideographs are set apart, accents and case are dropped where the
    rules say so, and words are split at white space and punctuation and then greedily into the longest pieces.
    Names of special tokens inside the text are ordinary text, as in the original (`transformers` does the same with
    `split_special_tokens=True`).

    Args:
        vocab: Tokens in the order of their ids.
        rules: Casing and the other rules of the model.

    Raises:
        ModelError: The vocabulary has duplicates or lacks a special token.

    Example:
        >>> tokenizer = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "##ness"])
        >>> tokenizer.encode(["Goodness me"]).input_ids[0].tolist()
        [2, 5, 6, 1, 3]
    """

    def __init__(self, vocab: Sequence[str], rules: Rules = Rules()) -> None:  # noqa: B008 (frozen dataclass)
        check_vocabulary(vocab, "the vocabulary")
        super().__init__(vocab, SPECIAL_TOKENS)
        self.rules = rules
        ids = {token: number for number, token in enumerate(self.vocab)}
        self._tokenizer = tokenizers.Tokenizer(
            models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=rules.max_word_chars)
        )
        self._tokenizer.normalizer = bert_normalizer(rules)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._bank = ChunkBank(self._encode_chunks)

    @classmethod
    def from_folder(cls, folder: str | Path, lower_case: bool | None = None) -> WordPiece:
        """Loads the tokenizer of a model folder; see `read_vocabulary` for the files and the errors."""
        return cls(*read_vocabulary(folder, lower_case))

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """See `Tokenizer`."""
        return any((folder / name).is_file() for name in (VOCAB_FILE, "tokenizer.json"))

    @property
    def files(self) -> tuple[str, ...]:
        """See `Tokenizer`."""
        return VOCAB_FILE, CONFIG_FILE

    @property
    def lower_case(self) -> bool:
        """Whether the text is lower-cased."""
        return self.rules.lower_case

    @property
    def digest(self) -> str:
        """See `Tokenizer`."""
        content = json.dumps([self.vocab, asdict(self.rules)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def pieces(self, texts: Sequence[str]) -> Ragged:
        """See `Tokenizer`."""
        parts = [self._bank.rows(texts[at : at + ROWS_AT_A_TIME]) for at in range(0, len(texts), ROWS_AT_A_TIME)]
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        values = np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)])
        return Ragged(values, np.cumsum(lengths))

    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """See `Tokenizer`."""
        ids: list[list[int]] = []
        spans: list[np.ndarray] = []
        for at in range(0, len(texts), ROWS_AT_A_TIME):
            for encoding in self._encodings(self._tokenizer.encode_batch, list(texts[at : at + ROWS_AT_A_TIME])):
                ids.append(encoding.ids)
                spans.append(np.array(encoding.offsets, np.int32).reshape(-1, 2))
        rows = Ragged.from_lists(ids)
        return rows, Ragged(np.concatenate([np.zeros((0, 2), np.int32), *spans]), rows.offsets)

    def in_graph(self, max_length: int = 128, folder: Path | None = None) -> GraphWordPiece:
        """See `Tokenizer`."""
        from easytransfer.text.wordpiece_graph import GraphWordPiece

        if folder is not None:
            return GraphWordPiece(folder / VOCAB_FILE, max_length=max_length, rules=self.rules)
        own = Path(tempfile.mkdtemp(prefix="easytransfer-vocabulary-"))
        self.save(own)
        module = self.in_graph(max_length, own)
        # The asset is copied when the module is saved, so the file must live as long as the module.
        weakref.finalize(module, shutil.rmtree, own, ignore_errors=True)
        return module

    @property
    def continues(self) -> np.ndarray:
        """See `Tokenizer`."""
        return np.array([token.startswith("##") for token in self.vocab])

    def join(self, pieces: Sequence[str]) -> str:
        """See `Tokenizer`."""
        return decoders.WordPiece().decode(list(pieces))

    def save(self, folder: str | Path) -> None:
        """Writes `vocab.txt` and `tokenizer_config.json`, from which `from_folder` makes an equal tokenizer.

        Raises:
            ModelError: A token cannot stand on a line of its own.
        """
        folder = Path(folder)
        wrong = [token for token in self.vocab if "\n" in token or token.endswith("\r")]
        if wrong or self.vocab[0].startswith("\ufeff"):
            raise ModelError("a token cannot be written to vocab.txt", received=wrong[0] if wrong else self.vocab[0])
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / VOCAB_FILE, "".join(token + "\n" for token in self.vocab))
        write_file(folder / CONFIG_FILE, json.dumps(tokenizer_config(self.rules), indent=2) + "\n")

    def _encode_chunks(self, chunks: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._encodings(self._tokenizer.encode_batch_fast, chunks)]

    @staticmethod
    def _encodings(encode: Callable[..., list[Encoding]], texts: list[str]) -> list[Encoding]:
        try:
            return encode(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            if (refused := not_a_text(texts)) is not None:
                raise refused from error
            raise
