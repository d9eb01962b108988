"""Every application reads cells of any type as what they plainly mean, or says what is wrong with them."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from appzoo import jobs
from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.jobs.tables import load_rows, say_labels
from appzoo.jobs.trained import new_app
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.files import table_records
from easytransfer.errors import ConfigError, DataError
from easytransfer.run.environment import environment_record
from easytransfer.run.folder import RunFolder

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

SENTENCE = "the movie was good"
ANSWERS = '["movie", 4]'
# Applications with their columns, and a row that each of them reads.
APPLICATIONS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "text_classify_bert": ({"firstSequence": "text"}, {"text": SENTENCE}),
    "text_classify_cnn": ({"firstSequence": "text"}, {"text": SENTENCE}),
    "text_match_bert": ({"firstSequence": "text", "secondSequence": "other"}, {"text": SENTENCE, "other": SENTENCE}),
    "text_match_bert_two_tower": (
        {"firstSequence": "text", "secondSequence": "other"}, {"text": SENTENCE, "other": SENTENCE},
    ),
    "text_match_bicnn": ({"firstSequence": "text", "secondSequence": "other"}, {"text": SENTENCE, "other": SENTENCE}),
    "sequence_labeling_bert": ({"firstSequence": "text"}, {"text": SENTENCE, "label": "x y x x"}),
    "text_comprehension_bert": (
        {"firstSequence": "text", "secondSequence": "other"},
        {"text": SENTENCE, "other": '["what", "q1"]', "label": ANSWERS},
    ),
}  # fmt: skip
CELLS = [
    None, True, 7, -(2**60), 1.5, float("nan"), "", "plain", "a\u0000b", b"bytes", b"\xff", [],
    ["a", "b"], ["a b", "c"], [1, 2], [1.5], [None], [["a"], []], [b"a"], {"a": 1},
    [{"text": "movie", "answer_start": 4}],
    {"text": ["movie"], "answer_start": [4]}, datetime.datetime(2024, 2, 29), datetime.date(2024, 2, 29),
    Decimal("1.5"),
]  # fmt: skip


def app_of(name: str, tiny_model: Path, table: Path, **flags: object) -> Any:
    columns, _ = APPLICATIONS[name]
    given = {
        "modelName": name, "inputTable": f"{table},{table}", "labelName": "label", "checkpointDir": "x",
        "sequenceLength": 80, "labelEnumerateValues": None if "comprehension" in name else "x,y", **columns, **flags,
    }  # fmt: skip
    if name.endswith("bert") or name.endswith("tower"):
        given["advancedParameters"] = f"pretrain_model_name_or_path={tiny_model}"
    arguments = [f"--{key}={value}" for key, value in given.items() if value is not None]
    return new_app(JobReader("train", arguments, []).read().config)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes a table and returns its path."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_no_cell_ends_in_a_trace(tmp_path, tiny_model, name, suffix):
    row = {"label": "x", **APPLICATIONS[name][1]}
    app = app_of(name, tiny_model, tmp_path / f"t{suffix}")
    good = write(tmp_path / f"good{suffix}", [row] * 2)
    app.load_assets(None, lambda column: [row[column]])
    assert load_rows(app, str(good), with_labels=True).count.accepted == 2
    for column in row:
        for number, cell in enumerate(CELLS):
            try:
                table = write(tmp_path / f"{column}-{number}{suffix}", [{**row, column: cell}])
            except (TypeError, pa.ArrowException):
                continue  # The form has no such value.
            bad_rows = BadRows("skip")
            try:
                count = load_rows(app, str(table), True, bad_rows).count
            except (DataError, ConfigError) as error:
                assert len(str(error).splitlines()) == 1
            else:
                assert count.accepted >= 1 or bad_rows.reasons


def encoded(name: str, tiny_model: Path, table: Path, **flags: object) -> Any:
    app = app_of(name, tiny_model, table, **flags)
    app.load_assets(None)
    return load_rows(app, str(table), with_labels=True).encoded


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_lists_of_words_and_tags_are_labelled_as_their_texts_are(tmp_path, tiny_model, suffix):
    texts = write(tmp_path / f"texts{suffix}", [{"text": "the movie was", "label": "x y x"}] * 2)
    lists = write(tmp_path / f"lists{suffix}", [{"text": ["the", "movie", "was"], "label": ["x", "y", "x"]}] * 2)
    first, second = (encoded("sequence_labeling_bert", tiny_model, table) for table in (texts, lists))
    assert first.columns["input_ids"].values.tolist() == second.columns["input_ids"].values.tolist()
    assert first.columns["label_id"].values.tolist() == second.columns["label_id"].values.tolist()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    ("question", "label"),
    [
        (["what", "q1"], "movie||4"),
        ("what||q1", [{"text": "movie", "answer_start": 4}]),
        ("what||q1", {"text": ["movie"], "answer_start": [4]}),
    ],
)
def test_lists_of_questions_and_answers_are_read_as_their_json_is(tmp_path, tiny_model, suffix, question, label):
    rows = [{"text": SENTENCE, "other": question, "label": label}] * 2
    found = encoded("text_comprehension_bert", tiny_model, write(tmp_path / f"t{suffix}", rows))
    plain = [{"text": SENTENCE, "other": "what||q1", "label": "movie||4"}] * 2
    expected = encoded("text_comprehension_bert", tiny_model, write(tmp_path / f"plain{suffix}", plain))
    assert found.columns["input_ids"].values.tolist() == expected.columns["input_ids"].values.tolist()
    assert found.columns["start_position"].tolist() == expected.columns["start_position"].tolist()


def test_a_score_is_read_by_one_rule_whatever_the_schema_says(tmp_path, tiny_model):
    cells = ["1e39", "1_000", "\u0661", "nan", "inf", "good", "", " 2.5 "]
    table = tmp_path / "t.tsv"
    table.write_text("".join(f"{SENTENCE}\t{cell}\n" for cell in cells), encoding="utf-8")
    accounts = []
    for kind in ("str", "float"):
        app = app_of("text_classify_bert", tiny_model, table, labelEnumerateValues=None,
                     inputSchema=f"text:str:1,label:{kind}:1")  # fmt: skip
        app.load_assets(None)
        rows = load_rows(app, str(table), True, BadRows("skip"))
        assert rows.encoded.columns["label_id"].tolist() == [2.5]
        accounts.append(dict(rows.reasons))
    assert accounts[0] == {"number out of range": 3, "not a number": 3, "empty label": 1}
    assert accounts[1] == {"number out of range": 3, "not a number": 3, "empty number": 1}


# Headers and classes -----------------------------------------------------------------------------------------


def dry_run(capfd, mode: str, tiny_model: Path, table: Path, code: int, **flags: object) -> list[str]:
    """Runs a dry run of a job and returns the lines it says."""
    given = {
        "modelName": "text_classify_bert", "inputSchema": "text:str:1,label:str:1", "firstSequence": "text",
        "labelName": "label", "labelEnumerateValues": "auto", "dryRun": "true",
        "advancedParameters": f"pretrain_model_name_or_path={tiny_model}", **flags,
    }  # fmt: skip
    capfd.readouterr()
    found = main([mode, *(f"--{name}={value}" for name, value in given.items() if value is not None)])
    lines = capfd.readouterr().err.splitlines()
    assert found == code, lines
    return lines


@pytest.mark.parametrize(("name", "cells"), [("t.tsv", "\t"), ("t.csv", ",")])
def test_a_header_is_no_class_under_auto(capfd, tmp_path, tiny_model, name, cells):
    table = tmp_path / name
    table.write_text("text\tlabel\ngood\tpos\nbad\tneg\nfine\tpos\n".replace("\t", cells))
    flags = {"inputTable": f"{table},{table}", "checkpointDir": tmp_path / "run"}
    *_, line = dry_run(capfd, "train", tiny_model, table, 3, **flags)
    assert "--header=names" in line and f"{table}:1" in line
    lines = dry_run(capfd, "train", tiny_model, table, 0, header="names", **flags)
    assert "labels: neg (1), pos (2)" in lines
    *_, line = dry_run(capfd, "preprocess", tiny_model, table, 3, inputTable=table, outputTable=tmp_path / "out.tsv")
    assert "--header=names" in line


def test_a_class_named_as_the_label_column_is_warned_about(capfd, tmp_path, tiny_model):
    table = tmp_path / "t.tsv"
    table.write_text("sentence\tlabel\ngood\tpos\nbad\tneg\n")
    flags = {"inputTable": f"{table},{table}", "checkpointDir": tmp_path / "run"}
    lines = dry_run(capfd, "train", tiny_model, table, 0, **flags)
    assert "labels: label (1), neg (1), pos (1)" in lines
    assert any("one row has the class 'label', as the label column is called" in line for line in lines)


def test_only_some_of_many_classes_are_shown(capfd, tmp_path, tiny_model):
    row = [{"text": "a", "label": f"c{number:02}"} for number in range(25)]
    table = write(tmp_path / "t.jsonl", row)
    app = app_of("text_classify_bert", tiny_model, table, labelEnumerateValues="auto")
    app.load_assets(None, lambda column: [cells[column] for cells in row])
    say_labels(app)
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.endswith("c18 (1), c19 (1), ... (25 in all)")


ASKED = {"modelName": "text_comprehension_bert", "inputSchema": None, "firstSequence": "text",
         "secondSequence": "other", "labelEnumerateValues": None}  # fmt: skip


def test_structures_pass_the_checks_of_the_command_line_where_they_have_a_text(capfd, tmp_path, tiny_model):
    answers = {"text": ["movie"], "answer_start": [4]}
    table = write(tmp_path / "t.parquet", [{"text": SENTENCE, "other": "what||q1", "label": answers}] * 2)
    flags = {"inputTable": f"{table},{table}", "checkpointDir": tmp_path / "run"}
    lines = dry_run(capfd, "train", tiny_model, table, 0, **flags, **ASKED)
    assert any("train: 2 rows read, 2 used, 0 rejected" in line for line in lines), lines
    given = {**flags, "inputSchema": None, "labelEnumerateValues": "x,y"}
    *_, line = dry_run(capfd, "train", tiny_model, table, 2, **given)
    assert "column 'label' of table" in line and "has type struct<" in line
    given = {"inputTable": table, "outputTable": tmp_path / "out.tsv", "appendCols": "label", **ASKED}
    *_, line = dry_run(capfd, "preprocess", tiny_model, table, 2, **given, labelName=None)
    assert "column 'label' of table" in line and "has type struct<" in line


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_the_part_of_an_answer_that_is_wrong_is_named(tmp_path, tiny_model, suffix):
    for text, start, reason in (
        (None, 4, "answer text is no text: 'None'"),
        ("movie", None, "answer start is not an integer: 'None'"),
    ):
        answers = {"text": ["movie", text], "answer_start": [4, start]}
        row = {"text": SENTENCE, "other": "what||q1", "label": answers}
        with pytest.raises(DataError, match=reason):
            encoded("text_comprehension_bert", tiny_model, write(tmp_path / f"t{suffix}", [row]))


# Outputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"appendCols": "id,input_ids"}, "appendCols names a column that is written already; got 'input_ids'"),
        ({"appendCols": "id,label_id"}, "appendCols names a column that is written already; got 'label_id'"),
        ({"appendCols": "id,id"}, "appendCols names a column twice; got 'id'"),
        ({"outputSchema": "input_ids,input_ids"}, "outputSchema names a column twice; got 'input_ids'"),
        ({"outputSchema": "bert_finetune", "appendCols": "input_mask"}, "written already; got 'input_mask'"),
    ],
)
@pytest.mark.parametrize("output", ["out.tsv", "out.csv", "out.jsonl", "out.parquet", "out.tfrecord"])
def test_copied_columns_take_no_place_of_encoded_ones(tmp_path, tiny_model, flags, message, output):
    names = ("id", "text", "label", "input_ids", "input_mask", "label_id")
    table = write(tmp_path / "t.jsonl", [dict.fromkeys(names, "x")] * 2)
    given = {
        "modelName": "text_classify_bert", "inputTable": table, "firstSequence": "text", "labelName": "label",
        "labelEnumerateValues": "x,y", "outputTable": tmp_path / output,
        "advancedParameters": f"pretrain_model_name_or_path={tiny_model}", **flags,
    }  # fmt: skip
    config = JobReader("preprocess", [f"--{name}={value}" for name, value in given.items()], []).read().config
    with pytest.raises(ConfigError) as error:
        jobs.preprocess(config)
    assert message in str(error.value) and not list(tmp_path.glob("out*"))


# Continued runs ----------------------------------------------------------------------------------------------


def stopped_run(tmp_path: Path, tiny_model: Path) -> tuple[Any, Path, Path]:
    """A run that was stopped behind its first checkpoint: its configuration and its two tables."""
    tables = [write(tmp_path / f"{name}.jsonl", [{"text": "good", "label": "x"}] * 3) for name in ("train", "dev")]
    given = {
        "modelName": "text_classify_bert", "inputTable": ",".join(map(str, tables)), "firstSequence": "text",
        "labelName": "label", "labelEnumerateValues": "x,y", "checkpointDir": tmp_path / "run", "dryRun": "true",
        "advancedParameters": f"pretrain_model_name_or_path={tiny_model}",
    }  # fmt: skip
    config = JobReader("train", [f"--{name}={value}" for name, value in given.items()], []).read().config
    inputs = table_records(config)
    with RunFolder.create(config.checkpoint_dir, config.model_dump(mode="json"), inputs=inputs) as folder:
        folder.write_run(environment_record(inputs=inputs))
        (folder.path / "model.ckpt-10").mkdir()
    return config, *tables


@pytest.mark.parametrize("changed", ["training", "evaluation"])
def test_a_run_does_not_go_on_with_a_changed_table_of_the_same_length(tmp_path, tiny_model, changed):
    config, *tables = stopped_run(tmp_path, tiny_model)
    assert jobs.train(config)["dry_run"]
    table = tables[changed == "evaluation"]
    write(table, [{"text": "evil", "label": "y"}] * 3)
    with pytest.raises(ConfigError, match=f"the {changed} table has changed since .* was started: {table}; restore it"):
        jobs.train(config)
    write(table, [{"text": "good", "label": "x"}] * 3)
    assert jobs.train(config)["dry_run"]
