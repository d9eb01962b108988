"""How rows are distributed over labels and lengths, counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from appzoo.jobs import distributions
from easytransfer.app.targets.labels import MultiLabel, Score, SingleLabel
from easytransfer.data.disk_array import DiskArray
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.labels import LabelMap

pytestmark = pytest.mark.draws_nothing


def application(target, *texts):
    return SimpleNamespace(target=target, text_columns=lambda: set(texts))


def both(**columns):
    """Two tables from pairs of columns."""
    return {part: EncodedTable({name: pair[i] for name, pair in columns.items()}) for i, part in enumerate(("a", "b"))}


def test_classes_are_counted_in_chunks_and_rows_without_one_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(distributions, "_CHUNK", 2)
    np.array([2, 0, 2, -1, 2], np.int32).tofile(tmp_path / "ids")
    on_disk = DiskArray(tmp_path / "ids", np.int32, (5,))
    found = distributions.distributions(
        application(SingleLabel(LabelMap(["x", "y", "z"]))), both(label_id=(on_disk, np.array([1], np.int32)))
    )
    assert found == {
        "labels_by_table": {
            "names": ["x", "y", "z"],
            "tables": {"a": [1, 0, 3], "b": [0, 1, 0]},
            "rows": {"a": 5, "b": 1},
        }
    }


def test_several_labels_of_a_row_are_counted_each():
    labels = np.array([[1, 1, 0], [0, 1, 0]], np.float32), np.array([[0, 0, 0]], np.float32)
    found = distributions.distributions(
        application(MultiLabel(LabelMap(["x", "y", "z"]), 3, 0.5)), both(label_id=labels)
    )
    assert found["labels_by_table"]["tables"] == {"a": [1, 2, 0], "b": [0, 0, 0]}
    assert found["labels_by_table"]["rows"] == {"a": 2, "b": 1}


def test_numbers_are_counted_in_parts_of_their_range():
    found = distributions.distributions(
        application(Score()), both(label_id=(np.array([0, 0.5, 12], np.float32), np.array([3.5], np.float32)))
    )["labels_by_table"]
    assert found["names"][0] == "0 to 1" and found["names"][11] == "11 to 12" and len(found["names"]) == 12
    assert found["tables"] == {"a": [2, *[0] * 10, 1], "b": [0, 0, 0, 1, *[0] * 8]}
    same = np.array([2.5, 2.5], np.float32), np.array([2.5], np.float32)
    found = distributions.distributions(application(Score()), both(label_id=same))["labels_by_table"]
    assert found == {"names": ["2.5 to 2.5"], "tables": {"a": [2], "b": [1]}, "rows": {"a": 2, "b": 1}}


def test_lengths_of_rows_are_those_of_their_longest_window():
    ids = Ragged.from_lists([[1] * length for length in (4, 7, 3, 30)])
    one = EncodedTable({"ids": ids}, {"mask": "ids"}, row_of=np.array([0, 0, 1, 2]))
    other = EncodedTable({"ids": Ragged.from_lists([[1] * 3, [1] * 5])}, {"mask": "ids"})
    found = distributions.distributions(application(None, "text"), {"a": one, "b": other})
    # 28 lengths from 3 to 30, three in a part, the last with one.
    assert found["lengths_by_table"]["names"][:2] == ["3 to 5", "6 to 8"]
    assert found["lengths_by_table"]["names"][-1] == "30" and len(found["lengths_by_table"]["names"]) == 10
    assert found["lengths_by_table"]["tables"] == {"a": [1, 1, *[0] * 7, 1], "b": [2, *[0] * 9]}
    assert found["lengths_by_table"]["rows"] == {"a": 3, "b": 2}


def test_applications_without_labels_and_texts_have_none():
    assert distributions.distributions(application(None), both(x=(np.zeros(2), np.zeros(1)))) == {}
