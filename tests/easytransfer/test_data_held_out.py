"""Rows held out for evaluation: their number by hand, their choice against chance, and their account."""

from collections import Counter

import numpy as np
import pytest

from easytransfer.data.bad_rows import BadRows
from easytransfer.data.held_out import MOST_CLASSES, TablePart, hold_out
from easytransfer.data.squad_format import SquadFormat, write_questions
from easytransfer.data.table import open_table
from easytransfer.errors import DataError


def chosen(labels, share=0.1, seed=1, common=None):
    rows = [(i, label, common[i] if common else "") for i, label in enumerate(labels)]
    return hold_out(lambda: iter(rows), share, seed)


@pytest.mark.parametrize(
    ("counts", "share", "held"),
    [
        ({"a": 100, "b": 50}, 0.1, {"a": 10, "b": 5}),
        ({"a": 66, "b": 34}, 0.1, {"a": 7, "b": 3}),  # 6.6 and 10 in all
        ({"a": 2, "b": 2, "c": 2, "d": 2, "e": 2}, 0.2, {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}),  # 0.4 0.8 1.2 1.6 2
        ({"a": 20, "b": 1}, 0.5, {"a": 10, "b": 0}),
        ({"a": 3, "b": 1}, 0.9, {"a": 2, "b": 0}),  # one of each stays
    ],
)
def test_each_class_gives_its_share_and_the_table_its_own(counts, share, held):
    labels = [name for name, count in counts.items() for _ in range(count)]
    found = chosen(labels, share)
    assert found.counts == {name: (counts[name], held[name]) for name in counts}
    assert Counter(labels[i] for i in found.rows) == Counter({name: n for name, n in held.items() if n})
    assert found.rows.tolist() == sorted(set(found.rows.tolist()))


def test_a_seed_is_a_choice_and_another_seed_another():
    labels = ["a", "b"] * 50
    assert chosen(labels, seed=5).rows.tolist() == chosen(labels, seed=5).rows.tolist()
    assert chosen(labels, seed=5).rows.tolist() != chosen(labels, seed=6).rows.tolist()


def test_every_row_is_as_likely_as_every_other():
    """400 choices of 4 of 20 rows: each row 80 times, with a standard deviation of 8; five of these are allowed."""
    often = np.zeros(40)
    for seed in range(400):
        often[chosen(["a"] * 20 + ["b"] * 20, 0.2, seed).rows] += 1
    assert often.sum() == 400 * 8 and np.abs(often - 80).max() < 40


def test_what_is_no_class_is_one_stratum_whose_neighbours_stay_together():
    texts = [f"answer {i}" for i in range(60)]
    found = chosen(texts, 0.2, common=[f"context {i // 5}" for i in range(60)])
    assert found.counts == {"": (60, 10)}  # 2.4 of 12 contexts
    assert Counter(i // 5 for i in found.rows.tolist()) == Counter(
        dict.fromkeys({i // 5 for i in found.rows.tolist()}, 5)
    )
    unlabelled = chosen([""] * 60, 0.2, common=[f"context {i // 5}" for i in range(60)])
    assert unlabelled.rows.tolist() == found.rows.tolist() and unlabelled.counts == found.counts
    assert list(chosen([f"{i % (MOST_CLASSES + 1)}" for i in range(3 * MOST_CLASSES + 3)]).counts) == [""]
    assert chosen([""] * 50, 0.1).counts == {"": (50, 5)}


@pytest.mark.parametrize("labels", [["a", "b"], ["a"] * 4, ["a", "a", "b", "b"]])
def test_too_few_rows_are_refused(labels):
    with pytest.raises(DataError, match=r"too small for rows to be held out; .*--evalTable=TABLE or .*--evalShare"):
        chosen(labels)


def test_parts_keep_what_numpy_says_and_the_others():
    held = np.array([0, 3, 4, 9])
    for index in (np.arange(12), np.arange(5, 9), np.arange(0), np.array([9, 11])):
        expected = np.isin(index, held)
        assert TablePart(held, True).keeps(index).tolist() == expected.tolist()
        assert TablePart(held, False).keeps(index).tolist() == (~expected).tolist()


def test_every_row_is_in_one_part_bad_ones_too(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"t{i},x\n" if i % 7 else f"bad {i}\n" for i in range(50)))
    held = np.array([1, 7, 30, 49])
    read, lines, rejected = [], [], 0
    for evaluation in (False, True):
        table = open_table(str(path), schema=None, bad_rows=BadRows("skip"))
        table.part = TablePart(held, evaluation)
        for chunk in table.chunks(8):
            read += chunk.columns["text"]
            lines += chunk.lines.tolist()
        rejected += table.count.rejected
        assert table.count.read == (len(held) if evaluation else 50 - len(held))
    assert sorted(read) == sorted(f"t{i}" for i in range(50) if i % 7) and rejected == 8
    assert read[-2:] == ["t1", "t30"] and lines[-2:] == [3, 32], "7 and 49 are bad rows"


def test_questions_are_written_as_the_file_they_were_read_from(tmp_path):
    rows = [
        {"id": "1", "title": "t", "context": "c d", "question": "q", "answers": '[{"text": "d", "answer_start": 2}]'},
        {"id": "2", "title": "t", "context": "c d", "question": "r \u00e9", "answers": "[]"},
        {"id": "3", "title": "", "context": "e", "question": "s", "answers": ""},
    ]
    path = tmp_path / "t.json"
    write_questions(path, iter(rows))
    table = open_table(str(path), schema=None)
    assert isinstance(table._format, SquadFormat)
    (chunk,) = table.chunks()
    assert [
        dict(zip(chunk.columns, values, strict=True)) for values in zip(*chunk.columns.values(), strict=True)
    ] == rows
