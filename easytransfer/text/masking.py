"""Masked language modelling: which pieces of a text a model has to guess (BERT, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.text.tokenizer import Tokenizer


@dataclass
class MaskedTokens:
    """Rows of which some pieces are hidden.

    Attributes:
        input_ids: The ids with [MASK] and random pieces in them, of the lengths of the original rows.
        positions: Hidden positions in ascending order, int32 [rows, most], 0 behind the end.
        ids: The pieces that were there, int32 [rows, most].
        weights: 1 for real entries of the two, float32 [rows, most].
    """

    input_ids: Ragged
    positions: np.ndarray
    ids: np.ndarray
    weights: np.ndarray


class TokenMasker:
    """Hides pieces: 80 % become [MASK], 10 % a random piece, 10 % stay as they are.

    Words are hidden as a whole. Special tokens are neither hidden nor drawn. What happens to a row depends on the seed
    and the number of the row only, so that workers and repetitions agree.

    Args:
        tokenizer: Tokenizer of the rows.
        seed: Seed of all choices.
        share: Share of the pieces of a row to hide; at least one is, if there is one.
        most: Largest number of hidden pieces.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int, share: float = 0.15, most: int = 20) -> None:
        self._mask_id, self._seed, self._share, self._most = tokenizer.mask_id, seed, share, most
        self._is_special = np.isin(np.arange(len(tokenizer)), list(tokenizer.special_ids.values()))
        self._ordinary = np.flatnonzero(~self._is_special).astype(np.int32)
        self._continues = tokenizer.continues

    def mask(self, rows: Ragged, numbers: np.ndarray) -> MaskedTokens:
        """Hides pieces in every row.

        Args:
            rows: Encoded rows with their special tokens.
            numbers: Number of each row in its table, [rows].
        """
        shape = (len(rows), self._most)
        masked = MaskedTokens(
            Ragged(rows.values.copy(), rows.offsets),
            np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32),
        )  # fmt: skip
        for row, number in enumerate(numbers):
            draw = np.random.Generator(np.random.PCG64([self._seed % 2**63, int(number)]))
            ids = masked.input_ids[row]  # a view of the copy
            chosen = self._choose(ids, draw)
            count = len(chosen)
            masked.positions[row, :count], masked.ids[row, :count], masked.weights[row, :count] = chosen, ids[chosen], 1
            fate = draw.random(count)
            random = self._ordinary[draw.integers(len(self._ordinary), size=count)]
            ids[chosen] = np.where(fate < 0.8, self._mask_id, np.where(fate < 0.9, random, ids[chosen]))
        return masked

    def _choose(self, ids: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Returns the positions to hide, in ascending order."""
        candidates = np.flatnonzero(~self._is_special[ids])
        wanted = min(self._most, max(1, round(len(ids) * self._share)))
        # A piece that continues belongs to the word of the piece before it, if that is its neighbour.
        follows = self._continues[ids[candidates]] & (np.diff(candidates, prepend=-2) == 1)
        words = np.split(candidates, np.flatnonzero(~follows)[1:]) if len(candidates) else []
        chosen: list[int] = []
        for word in draw.permutation(len(words)):
            # A word that would be too many is passed over for shorter ones.
            if len(chosen) + len(words[word]) <= wanted:
                chosen.extend(words[word].tolist())
            if len(chosen) >= wanted:
                break
        return np.array(sorted(chosen), np.int64)
