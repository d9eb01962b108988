"""Which class a label cell names, which names a reader would take for one another, and lists that are no choice."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest

from easytransfer.data.label_names import class_name, class_names, name_warnings, one_value, spelled
from easytransfer.data.labels import LabelMap, count_classes
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (np.float32(3), "3"),
        (np.int64(7), "7"),
        (0.5, "0.5"),
        (Decimal("1.0"), "1"),
        (Decimal("0.5"), "0.5"),
        (1e20, "100000000000000000000"),
        (float("inf"), "inf"),
        (True, "true"),
        (np.False_, "false"),
        (float("nan"), ""),
        ("01", "01"),
        ("1.0", "1.0"),
        (" yes\t", "yes"),
        ("\ufeffyes\u200b", "yes"),
        ("yes\u00ad \u00a0", "yes"),
        ("\u200b", ""),
        ("a\u200bb", "a\u200bb"),
        (b"yes", "yes"),
    ],
)
def test_one_cell_has_one_name(cell, name):
    assert class_name(cell) == name


def test_a_list_is_the_list_of_labels():
    assert class_names(["x", "y"]) == ["x", "y"]
    assert class_names([1, 2.0, True]) == ["1", "2", "true"]
    assert class_names(np.array([1, 2])) == ["1", "2"]
    assert class_names(["a, b"]) == ["a, b"], "the items of a list are not cut at commas"
    assert class_names("x, y,,") == ["x", "y"] and class_names([]) == [] and class_names(3.0) == ["3"]


def test_one_label_is_asked_of_a_list():
    assert one_value(["x"]) == "x" and one_value("x") == "x"
    for cell in ([], ["x", "y"], np.array([1, 2])):
        with pytest.raises(ValueError, match=rf"wrong number of labels: a list of {len(cell)} where a row has one"):
            one_value(cell)


def test_names_that_look_the_same_are_shown_with_their_code_points():
    names = ["Positive", "positive", "posi\u00adtive", "caf\u00e9", "cafe\u0301", "a b", "a\u00a0b", "other"]
    (sentence,) = name_warnings(names, from_table=True)
    assert "Positive and positive and posi<U+00AD>tive" in sentence
    assert "caf<U+00E9> and cafe<U+0301>" in sentence and "a b and a<U+00A0>b" in sentence
    assert "other" not in sentence and spelled("北\u200b") == "<U+5317><U+200B>"


def test_equal_numbers_are_warned_of_and_leading_zeros_are_not_numbers():
    (sentence,) = name_warnings(["0", "0.0", "1", "1.0", "01", "10", "1e1"], from_table=False)
    assert "0 and 0.0; 1 and 1.0; 10 and 1e1" in sentence and "01" not in sentence
    assert not name_warnings(["01", "1", "001", "nein", "infinity"], from_table=True)


def test_missing_words_are_warned_of_where_nobody_has_listed_them():
    names = ["NA", "nan", "None", "null", "#N/A", "nil", "yes"]
    (sentence,) = name_warnings(names, from_table=True)
    assert "the labels NA, nan, None, null, #N/A mean a missing value" in sentence
    assert not name_warnings(names, from_table=False)


def test_many_groups_are_cut():
    names = [f"{kind}{i}" for i in range(9) for kind in "aA"]
    assert "a4 and A4; and 4 more" in name_warnings(names, from_table=True)[0]


def test_a_name_is_found_by_any_of_its_spellings(tmp_path):
    labels = LabelMap(["0", "1", "true"])
    assert [labels.id_of(cell) for cell in (0, 0.0, "1", 1.0, True, " 1 ", "\ufeff0")] == [0, 0, 1, 1, 2, 1, 0]
    assert labels.id_of("1.0") is None and labels.id_of("01") is None and labels.id_of(0.5) is None
    assert "unknown label: '1.0'; known: 0, 1, true; 1.0 looks like 1 but" in labels.why_unknown("1.0")
    assert (
        labels.why_unknown("") == "empty label" and labels.why_unknown("2") == "unknown label: '2'; known: 0, 1, true"
    )
    assert "TRUE looks like true" in labels.why_unknown("TRUE")


def test_names_of_earlier_versions_are_still_found(tmp_path):
    (tmp_path / LabelMap.FILE).write_text(json.dumps({"0.0": 0, "1.0": 1, "True": 2, "a\u200b": 3}))
    labels = LabelMap.load(tmp_path)
    assert [labels.id_of(cell) for cell in (0.0, 1.0, True, "a\u200b", "1.0")] == [0, 1, 2, 3, 1]


def test_lists_in_files_and_on_the_command_line_follow_the_rule(tmp_path, capfd):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffno\u200b\nyes\n", encoding="utf-8")
    assert LabelMap.parse(str(path), Counter).names == ["no", "yes"]
    assert LabelMap.parse("no\u200b,\ufeffyes", Counter).names == ["no", "yes"]
    assert "warning" not in capfd.readouterr().err
    assert LabelMap.parse("Yes,yes,no", Counter).names == ["Yes", "yes", "no"]
    assert "are different classes here: Yes and yes" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="lists a label twice"):
        LabelMap.parse("yes,yes\u200b", Counter)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "yes",
            "names one class alone, and there is no file of this name; got 'yes'; accepted: two or more",
        ),
        ("labels.txt", "names one class alone, and there is no file of this name; got 'labels.txt'"),
        ("lists/labels.txt", "does not exist; got .lists/labels.txt'"),
    ],
)
def test_a_specification_of_one_entry_is_no_regression(spec, message):
    with pytest.raises(ConfigError, match=message) as raised:
        LabelMap.parse(spec, Counter, numbers=True)
    assert "list every class, or check the path" in str(raised.value) and "none" not in str(raised.value)


def test_a_file_with_one_name_is_no_regression(tmp_path):
    (tmp_path / "labels").write_text("yes\n\n")
    with pytest.raises(ConfigError, match="names fewer than two classes; got 'yes'"):
        LabelMap.parse(str(tmp_path / "labels"), Counter)


def test_one_class_in_the_table_is_no_regression():
    with pytest.raises(DataError, match=r"one class only.*got 'yes \(8 times\)'.*name another column") as raised:
        LabelMap.parse("auto", lambda: Counter(yes=8))
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "numbers", "advised"), [("2.5", True, True), ("2.5", False, False), ("yes", True, False)]
)
def test_numbers_are_advised_only_where_they_can_be_predicted(name, numbers, advised):
    with pytest.raises(DataError, match="one class only") as raised:
        LabelMap.parse("auto", lambda: Counter({name: 8}), numbers=numbers)
    assert ("labelEnumerateValues=none predicts numbers" in str(raised.value)) is advised


def test_classes_are_counted_by_their_names():
    cells = [1, 1.0, "1", True, "", float("nan"), ["x"], " x"]
    assert count_classes(cells) == {"1": 3, "true": 1, "x": 2}
    assert count_classes([["x", "y"], "x,z", [1.0]], several=True) == {"x": 2, "y": 1, "z": 1, "1": 1}
    with pytest.raises(DataError, match=r"a list of 2 where a row has one label; got \['x', 'y'\]; .*multi_label=true"):
        count_classes(["z", ["x", "y"]])
    assert count_classes(["z", ["x", "y"]], skip=True) == {"z": 1}


def test_numbers_in_text_columns_of_typed_tables_are_written_without_a_fraction(tmp_path):
    lines = ['{"a": "t", "label": 1}', '{"a": "t", "label": 1.0}', '{"a": "t", "label": "01"}']
    (tmp_path / "t.jsonl").write_text("\n".join([*lines, '{"a": "t", "label": NaN}']) + "\n")
    bad = BadRows("skip")
    table = open_table(str(tmp_path / "t.jsonl"), schema=parse_schema("a:str:1,label:str:1"), bad_rows=bad)
    (chunk,) = table.chunks()
    assert list(chunk.compact().columns["label"]) == ["1", "1", "01"] and bad.reasons == {"missing value": 1}
