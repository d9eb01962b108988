"""Rows that tables have twice: counts against a plain dictionary, in memory and on disk."""

from collections import defaultdict

import numpy as np
import pytest

from easytransfer.data.duplicates import MOST_EXAMPLES, Between, DuplicateFinder, Within


def plainly_counted(tables):
    """The same counts by comparing contents themselves; an empty label is none."""
    within, between = {}, {}
    for number, rows in enumerate(tables):
        labels = defaultdict(list)
        for content, label in rows:
            labels[content].append(label)
        repeated = sum(len(found) - 1 for found in labels.values())
        told = [list(filter(None, found)) for found in labels.values()]
        conflicting = sum(len(found) for found in told if len(set(found)) > 1)
        within[number] = (len(rows), repeated, conflicting)
        for earlier in range(number):
            known = defaultdict(set)
            for content, label in tables[earlier]:
                known[content].add(label)
            shared = [(content, label) for content, label in rows if content in known]
            other = [
                label for content, label in shared if label and known[content] - {""} and label not in known[content]
            ]
            between[earlier, number] = (len(shared), len(other))
    return within, between


@pytest.mark.parametrize("memory_rows", [1_000_000, 50, 1])
def test_counts_are_those_of_a_dictionary(memory_rows):
    random = np.random.default_rng(3)
    tables = [
        [((f"text {random.integers(60)}", "b"), ("", "x", "y", "z")[random.integers(4)]) for _ in range(size)]
        for size in (150, 40, 70)
    ]
    with DuplicateFinder(memory_rows) as finder:
        for number, rows in enumerate(tables):
            for start in range(0, len(rows), 32):
                part = rows[start : start + 32]
                finder.add(number, range(start, start + len(part)), *zip(*part, strict=True))
        found = finder.result()
        folder = finder._folder
    assert (folder is not None) == (memory_rows < 1_000_000)
    within, between = plainly_counted(tables)
    assert {n: (w.rows, w.repeated, w.conflicting) for n, w in found.within.items()} == within
    assert {pair: (b.rows, b.conflicting) for pair, b in found.between.items()} == between
    for pairs in [*found.within.values(), *found.between.values()]:
        assert len(pairs.examples) == MOST_EXAMPLES
        for (table, row), (other_table, other_row) in pairs.examples:
            first, second = tables[table][row], tables[other_table][other_row]
            assert first[0] == second[0] and first[1] != second[1] and first[1] and second[1]


def test_by_hand():
    with DuplicateFinder() as finder:
        finder.add(0, [0, 1, 2, 5], [("a",), ("a",), ("b",), ("c",)], ["x", "y", "x", "x"])
        finder.add(1, [7, 9], [("a",), ("b",)], ["x", "y"])
        found = finder.result()
    assert found.within == {0: Within(4, 1, 2, [((0, 0), (0, 1))]), 1: Within(2)}
    # `a` has the label x there, too; `b` has it not.
    assert found.between == {(0, 1): Between(2, 1, [((0, 2), (1, 9))])}


def test_a_row_without_a_label_has_no_other_label():
    with DuplicateFinder() as finder:
        finder.add(0, [0, 1, 2], [("a",), ("a",), ("b",)], ["x", "", ""])
        finder.add(1, [0, 1, 2], [("a",), ("b",), ("a",)], ["y", "x", ""])
        found = finder.result()
    assert found.within == {0: Within(3, 1), 1: Within(3, 1)}
    assert found.between == {(0, 1): Between(3, 1, [((0, 0), (1, 0))])}


def test_cells_are_not_joined():
    with DuplicateFinder() as finder:
        finder.add(0, [0, 1, 2], [("ab", "c"), ("a", "bc"), ("abc", "")], ["", "", ""])
        assert finder.result().within[0].repeated == 0


def test_files_are_removed():
    with DuplicateFinder(memory_rows=1) as finder:
        finder.add(0, [0], [("a",)], [""])
        folder = finder._folder.name
        from pathlib import Path

        assert list(Path(folder).iterdir())
    assert not Path(folder).exists()


def test_nothing():
    with DuplicateFinder() as finder:
        finder.add(0, [], [], [])
        assert finder.result().within == {}
