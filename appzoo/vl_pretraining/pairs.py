"""Texts and labels of other images, which rows take along: what makes a pair unmatched and a label wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def of_other_images(
    numbers: np.ndarray,
    images: Sequence[Any],
    texts: Sequence[Any],
    seed: int,
    *,
    count: int,
    groups: Sequence[Any] | None = None,
) -> np.ndarray:
    """Returns for every row `count` rows of other images with other texts; -1 where there is none.

    What a row gets depends on the seed, its number and the rows given, drawn with replacement.

    Args:
        numbers: Number of each row in its table, [rows].
        images: What identifies the image of each row.
        texts: What identifies the text of each row.
        seed: Seed.
        count: Rows wanted for each.
        groups: The group of each row, such as a sub-category; rows of the own group are taken where there are any.

    Returns:
        int64 [rows, count].
    """
    rows = len(numbers)
    found = np.full((rows, count), -1, np.int64)
    image, text = _codes(images), _codes(texts)
    everything = np.arange(rows)
    members = _members(_codes(groups)) if groups is not None else None
    for row, number in enumerate(numbers.tolist()):
        draw = np.random.Generator(np.random.PCG64([seed % 2**63, int(number)]))
        for pool in (members[row], everything) if members is not None else (everything,):
            chosen = _drawn(pool, row, image, text, draw, count)
            if chosen is not None:
                found[row] = chosen
                break
    return found


def _drawn(
    pool: np.ndarray, row: int, image: np.ndarray, text: np.ndarray, draw: np.random.Generator, count: int
) -> np.ndarray | None:
    """Returns rows of the pool drawn until image and text differ; None where the pool has none."""
    chosen = pool[draw.integers(len(pool), size=count)]
    for _ in range(_TRIES):
        equal = (image[chosen] == image[row]) | (text[chosen] == text[row])
        if not equal.any():
            return chosen
        chosen[equal] = pool[draw.integers(len(pool), size=int(equal.sum()))]
    others = pool[(image[pool] != image[row]) & (text[pool] != text[row])]
    return others[draw.integers(len(others), size=count)] if len(others) else None


def labels_of_other_images(
    numbers: np.ndarray, images: Sequence[Any], there: np.ndarray, seed: int, *, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns for every row `count` labels of other images, drawn with replacement from all labels of the rows.

    Args:
        numbers: Number of each row in its table, [rows].
        images: What identifies the image of each row.
        there: Which labels a row has, bool [rows, labels].
        seed: Seed.
        count: Labels wanted.

    Returns:
        The row and the place there of each, int64 [rows, count]; -1 for a row that nothing can be drawn for.
    """
    owner, place = np.nonzero(there)
    image = _codes(images)
    found = (np.full([len(there), count], -1, np.int64), np.full([len(there), count], -1, np.int64))
    # The row itself is one more label, of its own image and with a text of its own.
    of_label, texts = np.append(image[owner], -1), np.arange(len(owner) + 1)
    for row, number in enumerate(numbers.tolist()) if len(owner) else ():
        draw = np.random.Generator(np.random.PCG64([seed % 2**63, int(number), 1]))
        of_label[-1] = image[row]
        chosen = _drawn(texts[:-1], len(owner), of_label, texts, draw, count)
        if chosen is not None:
            found[0][row], found[1][row] = owner[chosen], place[chosen]
    return found


# Draws before all rows of a pool are looked through.
_TRIES = 20


def _codes(values: Sequence[Any]) -> np.ndarray:
    """Returns a number for each distinct value, int64 [rows]."""
    known: dict[Any, int] = {}
    return np.fromiter((known.setdefault(value, len(known)) for value in values), np.int64, len(values))


def _members(codes: np.ndarray) -> list[np.ndarray]:
    """Returns for every row the rows of its group."""
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    by_code = {int(codes[part[0]]): part for part in parts if len(part)}
    return [by_code[int(code)] for code in codes]
