"""Masked tokens: which positions are hidden, by what, and how often; rates against their expectation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easytransfer.data.encoded import Ragged
from easytransfer.text.masking import TokenMasker
from easytransfer.text.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB = [*SPECIAL, *(f"w{i}" for i in range(60)), *(f"##p{i}" for i in range(35))]
FIRST_PIECE, CONTINUED = 5, 65
TOKENIZER = WordPiece(VOCAB)


def rows(draw: np.random.Generator, count: int, length: int, continued: bool = False) -> Ragged:
    last = len(VOCAB) if continued else CONTINUED
    return Ragged.from_lists([[2, *draw.integers(FIRST_PIECE, last, size=length), 3] for _ in range(count)])


def originals(masked, row: int) -> np.ndarray:
    """Puts the hidden pieces back."""
    ids, count = masked.input_ids[row].copy(), int(masked.weights[row].sum())
    ids[masked.positions[row, :count]] = masked.ids[row, :count]
    return ids


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(VOCAB) - 1), min_size=0, max_size=30), min_size=1, max_size=6), st.data())
def test_what_holds_for_any_row(pieces, data):
    most, share = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([0.05, 0.15, 0.5]))
    before = Ragged.from_lists([[2, *row, 3] for row in pieces])
    masked = TokenMasker(TOKENIZER, 7, share, most).mask(before, np.arange(len(pieces)))
    assert masked.positions.shape == masked.ids.shape == masked.weights.shape == (len(pieces), most)
    for row, ids in enumerate(before[i] for i in range(len(before))):
        count = int(masked.weights[row].sum())
        positions = masked.positions[row, :count]
        np.testing.assert_array_equal(originals(masked, row), ids)
        assert (np.diff(positions) > 0).all() and (masked.weights[row, :count] == 1).all()
        assert not masked.weights[row, count:].any() and not masked.positions[row, count:].any()
        assert not np.isin(ids[positions], range(5)).any(), "special tokens are not hidden"
        assert count <= min(most, max(1, round(len(ids) * share)))
        untouched = np.delete(np.arange(len(ids)), positions)
        np.testing.assert_array_equal(masked.input_ids[row][untouched], ids[untouched])
        # What stands in a hidden place is [MASK] or an ordinary piece.
        assert np.isin(masked.input_ids[row][positions], [4, *range(5, len(VOCAB))]).all()


def test_rates_are_those_of_bert():
    before = rows(np.random.default_rng(0), 4000, 38)
    masked = TokenMasker(TOKENIZER, 1, 0.15, 20).mask(before, np.arange(4000))
    hidden = masked.weights.sum()
    assert hidden == 4000 * 6, "15 % of 40 pieces"
    shown = np.concatenate([masked.input_ids[r][masked.positions[r, :6]] for r in range(4000)])
    true = masked.ids[:, :6].reshape(-1)
    as_mask, same = (shown == 4).mean(), (shown == true).mean()
    # A random piece is the true one in 1 of 95 cases. Three standard deviations of 24,000 draws are below 0.01.
    assert abs(as_mask - 0.8) < 0.01 and abs(same - (0.1 + 0.1 / 95)) < 0.008
    random = shown[(shown != 4) & (shown != true)]
    assert abs(np.histogram(random, bins=5, range=(5, len(VOCAB)))[0] / len(random) - 0.2).max() < 0.04
    places = np.bincount(masked.positions[:, :6].reshape(-1), minlength=40)
    assert places[0] == places[39] == 0 and abs(places[1:39] / 24000 - 1 / 38).max() < 0.005


def test_words_are_hidden_as_a_whole():
    draw = np.random.default_rng(3)
    before = rows(draw, 300, 30, continued=True)
    masked = TokenMasker(TOKENIZER, 1, 0.3, 20).mask(before, np.arange(300))
    for row in range(300):
        ids, hidden = before[row], np.zeros(len(before[row]), bool)
        hidden[masked.positions[row, : int(masked.weights[row].sum())]] = True
        for place in range(2, len(ids) - 1):
            if ids[place] >= CONTINUED and not ids[place - 1] < FIRST_PIECE:
                assert hidden[place] == hidden[place - 1], "a word and its continuation share their fate"


def test_a_row_is_masked_alike_wherever_it_stands():
    before = rows(np.random.default_rng(5), 10, 20)
    masker = TokenMasker(TOKENIZER, 9)
    whole, later = masker.mask(before, np.arange(10)), masker.mask(before.take([7, 3]), np.array([7, 3]))
    np.testing.assert_array_equal(later.input_ids[0], whole.input_ids[7])
    np.testing.assert_array_equal(later.positions, whole.positions[[7, 3]])
    other = TokenMasker(TOKENIZER, 10).mask(before, np.arange(10))
    assert (other.positions != whole.positions).any()


@pytest.mark.parametrize("number", range(20))
def test_choices_equal_those_of_a_plain_loop(number):
    """The oracle follows the rules word by word, with the same draws."""
    ids = rows(np.random.default_rng(number), 1, 25, continued=True)[0]
    masked = TokenMasker(TOKENIZER, 4, 0.2, 4).mask(Ragged.from_lists([ids]), np.array([number]))
    draw = np.random.Generator(np.random.PCG64([4, number]))
    words: list[list[int]] = []
    for place, piece in enumerate(ids):
        if piece < FIRST_PIECE:
            continue
        if piece >= CONTINUED and words and words[-1][-1] == place - 1:
            words[-1].append(place)
        else:
            words.append([place])
    wanted, chosen = min(4, max(1, round(len(ids) * 0.2))), []
    for word in draw.permutation(len(words)):
        if len(chosen) + len(words[word]) <= wanted:
            chosen += words[word]
        if len(chosen) >= wanted:
            break
    chosen.sort()
    fate, pool = draw.random(len(chosen)), np.arange(FIRST_PIECE, len(VOCAB))
    random = pool[draw.integers(len(pool), size=len(chosen))]
    expected = ids.copy()
    for place, luck, piece in zip(chosen, fate, random, strict=True):
        expected[place] = 4 if luck < 0.8 else piece if luck < 0.9 else ids[place]
    assert masked.positions[0, : len(chosen)].tolist() == chosen
    np.testing.assert_array_equal(masked.input_ids[0], expected)
