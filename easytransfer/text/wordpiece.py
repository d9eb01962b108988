"""BERT's WordPiece tokenizer over `tokenizers`, batched and multi-threaded: the path for training and prediction.

`easytransfer.text.graph` gives the same ids inside a TensorFlow graph, for serving.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.data.values import is_utf8
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.text.chunks import ChunkBank
from easytransfer.text.vocabulary import (
    SPECIAL_TOKENS,
    UNK,
    Rules,
    check_vocabulary,
    read_vocabulary,
    tokenizer_config,
)

# Said explicitly, so that `tokenizers` neither guesses nor warns when a process forks after using its threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402

# Rows tokenized at a time: bounds the Python strings alive at once.
ROWS_AT_A_TIME = 8192


@dataclass
class Tokens:
    """Encoded rows, without padding.

    Attributes:
        input_ids: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, int32.
        segment_ids: 0 up to the first [SEP], 1 behind it, int32.
        truncated: Whether pieces of the row were cut off, bool [N].
        unknown: Number of [UNK] pieces kept in the row, int64 [N].
    """

    input_ids: Ragged
    segment_ids: Ragged
    truncated: np.ndarray
    unknown: np.ndarray


class WordPiece:
    """Turns text into BERT piece ids.

    The text is cleaned of control characters, CJK ideographs are set apart, accents and case are dropped where the
    rules say so, and words are split at white space and punctuation and then greedily into the longest pieces.
    Names of special tokens inside the text are ordinary text, as in the original: `[SEP]` typed by a user does not
    end a sequence (`transformers` does the same with `split_special_tokens=True`).

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
        self.vocab = list(vocab)
        self.rules = rules
        ids = {token: number for number, token in enumerate(self.vocab)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[token] for token in SPECIAL_TOKENS)
        self._tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=rules.max_word_chars))
        self._tokenizer.normalizer = bert_normalizer(rules)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._bank = ChunkBank(self._encode_chunks)

    @classmethod
    def from_folder(cls, folder: str | Path, lower_case: bool | None = None) -> WordPiece:
        """Loads the tokenizer of a model folder; see `read_vocabulary` for the files and the errors."""
        return cls(*read_vocabulary(folder, lower_case))

    @property
    def lower_case(self) -> bool:
        """Whether the text is lower-cased."""
        return self.rules.lower_case

    @property
    def digest(self) -> str:
        """SHA-256 over vocabulary and rules: equal digests give equal ids."""
        content = json.dumps([self.vocab, asdict(self.rules)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.vocab)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> Tokens:
        """Encodes single texts, or pairs of texts, to at most `max_length` pieces per row.

        Of a pair, the longer text is cut from its end until both have the same length, then both. Where both lose
        pieces and the room is odd, the longer text keeps the odd piece, or the second one when both are equally
        long: this is what `transformers` does (the original gave it to the first in that tie).

        Args:
            texts: First texts, N strings.
            pairs: Second texts, N strings, or None.
            max_length: Bound of a row, special tokens included.

        Raises:
            ConfigError: `max_length` leaves no room for text.
            DataError: A text holds half of a surrogate pair, or is none.
            ValueError: `pairs` differs in length from `texts`.
        """
        room = text_room(max_length, pairs is not None)
        if pairs is None:
            pieces = self.pieces(texts)
            return self._assemble(pieces, np.minimum(pieces.lengths, room), None, None)
        if len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs")
        first, second = self.pieces(texts), self.pieces(pairs)
        kept_first, kept_second = longest_first(first.lengths, second.lengths, room)
        return self._assemble(first, kept_first, second, kept_second)

    def pieces(self, texts: Sequence[str]) -> Ragged:
        """Returns the piece ids of every text, int32, without special tokens and not truncated.

        A text that consists of what the rules drop has none.
        """
        parts = [self._bank.rows(texts[at : at + ROWS_AT_A_TIME]) for at in range(0, len(texts), ROWS_AT_A_TIME)]
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        values = np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)])
        return Ragged(values, np.cumsum(lengths))

    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """Returns the ids of `pieces` and where each piece stands in its text.

        Returns:
            Ids, int32, and spans, int32 [pieces, 2]: start and end in characters of the text; see `offsets`.
        """
        ids: list[list[int]] = []
        spans: list[np.ndarray] = []
        for at in range(0, len(texts), ROWS_AT_A_TIME):
            for encoding in self._encodings(self._tokenizer.encode_batch, list(texts[at : at + ROWS_AT_A_TIME])):
                ids.append(encoding.ids)
                spans.append(np.array(encoding.offsets, np.int32).reshape(-1, 2))
        rows = Ragged.from_lists(ids)
        return rows, Ragged(np.concatenate([np.zeros((0, 2), np.int32), *spans]), rows.offsets)

    def tokenize(self, text: str) -> list[str]:
        """Returns the pieces of a text, without special tokens."""
        return self._encodings(self._tokenizer.encode_batch, [text])[0].tokens

    def offsets(self, text: str) -> list[tuple[str, int, int]]:
        """Returns every piece of a text with its start and end in characters of that text."""
        encoding = self._encodings(self._tokenizer.encode_batch, [text])[0]
        return [(token, start, end) for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns readable text for piece ids; padding, [CLS], [SEP] and [MASK] are left out, [UNK] stays.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        ids = [int(number) for number in ids]
        wrong = [number for number in ids if not 0 <= number < len(self.vocab)]
        if wrong:
            raise ValueError(f"ids {wrong[:5]} are not in the vocabulary of {len(self.vocab)} tokens")
        left_out = {self.pad_id, self.cls_id, self.sep_id, self.mask_id}
        return decoders.WordPiece().decode([self.vocab[number] for number in ids if number not in left_out])

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
        _write(folder / "vocab.txt", "".join(token + "\n" for token in self.vocab))
        _write(folder / "tokenizer_config.json", json.dumps(tokenizer_config(self.rules), indent=2) + "\n")

    def _encode_chunks(self, chunks: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._encodings(self._tokenizer.encode_batch_fast, chunks)]

    @staticmethod
    def _encodings(encode: Callable[..., list[Encoding]], texts: list[str]) -> list[Encoding]:
        try:
            return encode(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            # Readers of tables refuse such rows; this is for texts made in Python.
            wrong = next((text for text in texts if not isinstance(text, str) or not is_utf8(text)), None)
            if wrong is None:
                raise
            fix = "half of a surrogate pair is no character"
            raise DataError("not a text", received=ascii(wrong)[:80], accepted="strings", fix=fix) from error

    def _assemble(
        self, first: Ragged, kept_first: np.ndarray, second: Ragged | None, kept_second: np.ndarray | None
    ) -> Tokens:
        """Puts the kept pieces of both texts between the special tokens."""
        lengths = kept_first + 2
        cut = first.lengths > kept_first
        if second is not None:
            lengths = lengths + kept_second + 1
            cut = cut | (second.lengths > kept_second)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        end_first = np.repeat(kept_first + 1, lengths)
        ids = np.full(offsets[-1], self.sep_id, np.int32)
        ids[place == 0] = self.cls_id
        ids[(place > 0) & (place < end_first)] = _heads(first, kept_first)
        if second is not None:
            ids[(place > end_first) & (place < np.repeat(lengths - 1, lengths))] = _heads(second, kept_second)
        segments = Ragged((place > end_first).astype(np.int32), offsets)
        # Every row holds at least [CLS], so no range of reduceat is empty.
        is_unknown = (ids == self.unk_id).astype(np.int64)
        unknown = np.add.reduceat(is_unknown, offsets[:-1]) if len(lengths) else np.zeros(0, np.int64)
        return Tokens(Ragged(ids, offsets), segments, cut, unknown)


def bert_normalizer(rules: Rules) -> normalizers.BertNormalizer:
    """Returns the normalizer that applies `rules`."""
    return normalizers.BertNormalizer(
        clean_text=rules.clean,
        handle_chinese_chars=rules.split_cjk,
        strip_accents=rules.strips_accents,
        lowercase=rules.lower_case,
    )


def text_room(max_length: int, paired: bool) -> int:
    """Returns how many pieces of text fit beside the special tokens; ConfigError if none."""
    room = max_length - (3 if paired else 2)
    if room < 1:
        raise ConfigError("the maximum length leaves no room for text", received=max_length, accepted="4 or more")
    return room


def longest_first(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many pieces of each text stay, [N] each, so that both together fit into `room`.

    The shorter text keeps up to half of the room, the longer one the rest; see `WordPiece.encode`.
    """
    shorter = np.minimum(np.minimum(first, second), room // 2)
    first_is_shorter = first <= second
    fits = first + second <= room
    return (
        np.where(fits, first, np.where(first_is_shorter, shorter, room - shorter)),
        np.where(fits, second, np.where(first_is_shorter, room - shorter, shorter)),
    )


def _heads(rows: Ragged, kept: np.ndarray) -> np.ndarray:
    """Returns the first `kept[i]` values of every row, one after the other."""
    lengths = rows.lengths
    place = np.arange(rows.offsets[-1]) - np.repeat(rows.offsets[:-1], lengths)
    return rows.values[place < np.repeat(kept, lengths)]


def _write(path: Path, text: str) -> None:
    """Writes beside the file and renames, so that a crash leaves the old or the new file."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
