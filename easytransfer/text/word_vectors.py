"""Word vectors from a text file of word2vec, as start values of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from easytransfer.errors import ConfigError, DataError
from easytransfer.run.log import warn

# Standard deviation of the vectors of words that are not in the file.
MISSING_DEVIATION = 0.01


def read_word_vectors(path: str | Path, words: Sequence[str], dimension: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Reads the vectors of `words`, the first of each; those that are not in the file are drawn from N(0, 0.01).

    Args:
        path: Text file: a first line `count dimension`, then one `word number number ...` a line, UTF-8.
        words: Words in the order of their ids.
        dimension: Length of a vector.
        seed: Seed of the drawn vectors.

    Returns:
        float32 [words, dimension], and how many words were found.

    Raises:
        ConfigError: There is no such file, or its vectors have another length.
        DataError: The file is not of this form; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            "no such file of word vectors", received=str(path), fix="correct pretrain_word_embedding_name_or_path"
        )
    vectors = np.random.default_rng(seed).normal(0, MISSING_DEVIATION, (len(words), dimension)).astype(np.float32)
    ids = {word: number for number, word in enumerate(words)}
    found: set[int] = set()
    repeated: list[str] = []
    # Some published files hold words cut in the middle of a character.
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        count = _read_header(path, lines.readline(), dimension)
        number = 1
        for number, line in enumerate(lines, 2):
            # From the end, because published files have words with spaces inside.
            word, *numbers = line.rstrip().rsplit(" ", dimension)
            if len(numbers) < dimension:
                raise DataError(f"{path}:{number}: {len(numbers)} numbers behind a word instead of {dimension}")
            if word not in ids:
                continue
            vector = _vector(path, number, word, numbers)
            if ids[word] not in found:
                vectors[ids[word]] = vector
                found.add(ids[word])
            elif not np.array_equal(vector, vectors[ids[word]]):
                repeated.append(word)
    _tell(path, number - 1, count, repeated)
    return vectors, len(found)


def _tell(path: Path, lines: int, announced: int, repeated: list[str]) -> None:
    if repeated:
        warn(
            f"{path} holds {len(repeated):,} further vectors of words that it has already, such as {repeated[0]!r}; "
            "the first of each word is taken"
        )
    if lines != announced:
        warn(f"{path} holds {lines:,} vectors, its first line says {announced:,}; is it complete?")


def _read_header(path: Path, line: str, dimension: int) -> int:
    """Returns the number of vectors that the first line announces."""
    try:
        count, given = map(int, line.split())
    except ValueError:
        raise DataError(
            f"{path}:1: not a text file of word2vec",
            received=line[:80],
            accepted="a first line of two whole numbers, `count dimension`",
            fix="convert a binary file to text; put that line in front of a GloVe file",
        ) from None
    if given != dimension:
        raise ConfigError(
            f"the vectors in {path} have another length than embedding_size",
            received=dimension,
            accepted=str(given),
            fix=f"set embedding_size={given}",
        )
    return count


def _vector(path: Path, line: int, word: str, numbers: list[str]) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            vector = np.array(numbers, np.float32)
        if np.isfinite(vector).all():
            return vector
    except ValueError:
        pass
    raise DataError(f"{path}:{line}: the vector of {word!r} is not made of finite numbers")
