"""Words of a text and their ids, for networks that start without a pre-trained encoder. Needs no TensorFlow."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from easytransfer.config.json_text import parse_json
from easytransfer.data.encoded import Ragged
from easytransfer.errors import ModelError
from easytransfer.run.atomic import write_json

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]", "[SEP]")
PAD_ID, UNK_ID, EOS_ID = 0, 1, 3
# JSON object of word -> id, as the original wrote it.
VOCAB_FILE = "train_vocab.txt"

Split = Literal["none", "cjk", "all"]
# The ideographs BERT splits: its reference code lists these blocks.
CJK_RANGES = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
_CJK = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in CJK_RANGES) + "]")


def fold(text: str) -> str:
    """Lower-cases every character by itself, so that one table of characters can do the same inside a graph.

    `str.lower` looks at neighbours in one case, the two small sigmas, which become one here, and makes two characters
    of one other, the dotted capital I, which becomes a plain i.
    """
    return text.replace("İ", "i").lower().replace("ς", "σ")


def split_words(text: str, split: Split = "none") -> list[str]:
    """Returns the lower-cased words of a text.

    Args:
        text: Any text.
        split: `none` splits at white space; `cjk` also makes every Chinese character a word of its own; `all` makes
            every character a word.
    """
    text = fold(text)
    if split == "all":
        return [character for character in text if not character.isspace()]
    return (_CJK.sub(r" \g<0> ", text) if split == "cjk" else text).split()


@dataclass
class WordIds:
    """Encoded texts.

    Attributes:
        ids: Word ids of every text.
        truncated: Whether words were cut off, bool [texts].
        unknown: Words of every text that are not in the vocabulary, int64 [texts].
    """

    ids: Ragged
    truncated: np.ndarray
    unknown: np.ndarray


class WordVocabulary:
    """Words with ids, the special tokens first.

    No word of a text is ever a special token: they are in capitals, and words are lower-cased.

    Args:
        words: All words in the order of their ids, `SPECIAL_TOKENS` included.
        split: How texts become words, see `split_words`.

    Example:
        >>> vocabulary = WordVocabulary.build(["good film", "bad film"])
        >>> vocabulary.encode(["Good fun"], max_length=8).ids[0].tolist()
        [8, 1]
    """

    def __init__(self, words: Sequence[str], split: Split = "none") -> None:
        self.words = list(words)
        self.split: Split = split
        self._ids = {word: number for number, word in enumerate(self.words)}
        if self.words[: len(SPECIAL_TOKENS)] != list(SPECIAL_TOKENS) or len(self._ids) < len(self.words):
            raise ValueError(f"a word vocabulary starts with {' '.join(SPECIAL_TOKENS)} and holds no word twice")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(
        cls, texts: Iterable[str], *, max_size: int = 30000, min_count: int = 1, split: Split = "none"
    ) -> WordVocabulary:
        """Counts words and keeps the most frequent ones, equally frequent ones in alphabetical order.

        Args:
            texts: All texts of the training table.
            max_size: Most entries, special tokens included.
            min_count: Words met less often are left out.
            split: See `split_words`.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text, split))
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls([*SPECIAL_TOKENS, *(word for _, word in frequent)][:max_size], split)

    @classmethod
    def load(cls, folder: str | Path, split: Split = "none") -> WordVocabulary:
        """Reads what `save` wrote.

        Raises:
            ModelError: The file is missing or is no word vocabulary.
        """
        path = Path(folder) / VOCAB_FILE
        try:
            ids = parse_json(path.read_text(encoding="utf-8"))
            words = sorted(ids, key=ids.__getitem__)
            if [ids[word] for word in words] != list(range(len(words))):
                raise ValueError(f"ids are not 0 to {len(words) - 1}")
            return cls(words, split)
        except FileNotFoundError:
            raise ModelError(
                f"no word vocabulary {VOCAB_FILE} in {folder}", fix="give the folder of a run of the same application"
            ) from None
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ModelError(f"{path} is not a word vocabulary ({error})", fix="restore it or train again") from error

    def save(self, folder: Path) -> None:
        """Writes `train_vocab.txt`, a JSON object of word -> id."""
        write_json(folder / VOCAB_FILE, self._ids)

    def encode(self, texts: Sequence[str], *, max_length: int) -> WordIds:
        """Returns the ids of the first `max_length` words of every text."""
        get, rows = self._ids.get, []
        truncated = np.zeros(len(texts), bool)
        for number, text in enumerate(texts):
            words = split_words(text, self.split)
            truncated[number] = len(words) > max_length
            rows.append([get(word, UNK_ID) for word in words[:max_length]])
        offsets = np.cumsum([0, *map(len, rows)])
        ids = Ragged(np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets)
        unknown = np.concatenate([[0], np.cumsum(ids.values == UNK_ID)])[ids.offsets]
        return WordIds(ids, truncated, np.diff(unknown))
