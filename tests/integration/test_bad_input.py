"""Tables nobody can use, given to the command line: one clear line with file, row and column, and the exit code."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from training import without_export

from appzoo import discovery
from appzoo.cli.main import main
from easytransfer.config.files import load_file

GOOD = "good book\tpos\nbad film\tneg\n" * 5
# A table by name: its content, and what the one line of the error says.
TABLES = {
    "empty": (b"", "table {table} is empty: it has no row"),
    "only_line_breaks": (b"\n\n", "table {table} is empty: it has no row"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "{table} is not text: it looks like a PNG picture"),
    "spreadsheet": (b"PK\x03\x04" + bytes(range(256)), "{table} is not text: it looks like a zip archive"),
    "unknown_binary": (bytes(range(256)) * 4, "{table} is not text: it looks like binary data"),
    "gzip": (gzip.compress(GOOD.encode()), "{table} is not text: it looks like gzip data; give it a name that ends in"),
    "utf16": (
        GOOD.encode("utf-16-le"),
        "{table} looks like UTF-16LE; accepted: UTF-8; read it with --encoding=UTF-16LE",
    ),
    "latin1": ("caf\xe9\tpos\n".encode("latin-1"), "{table}:1: invalid UTF-8: invalid continuation byte at byte 4"),
    "nul": (b"good\tpos\na\0b\tpos\n", "{table}:2: NUL character"),
    "comma": (GOOD.replace("\t", ",").encode(), r"{table}:1: wrong column count: .* 2 cells with --delimiter=,;"),
    "semicolon": (GOOD.replace("\t", ";").encode(), r"{table}:1: wrong column count: .* 2 cells with --delimiter=';'"),
    "pipe": (GOOD.replace("\t", "|").encode(), r"{table}:1: wrong column count: .* 2 cells with --delimiter='\|'"),
    "spaces": (GOOD.replace("\t", "   ").encode(), "wrong column count: .*set apart by spaces: put one TAB between"),
    "cr": (GOOD.replace("\n", "\r").encode(), "{table}:1: wrong column count: .*the lines end in CR alone"),
    "too_many_cells": (b"good\tpos\nbad\tneg\tx\n", "{table}:2: wrong column count: expected 2, got 3"),
    "header": (b"text\tlabel\ngood\tpos\n", "{table}:1: the first line holds the column names: --header=names"),
    "unknown_label": (b"good\tpos\nbad\tmaybe\n", "{table}:2: column 'label': unknown label: 'maybe'; known: neg, pos"),
    "empty_label": (b"good\tpos\nbad\t\n", "{table}:2: column 'label': empty label"),
    "too_long": (
        b"good\tpos\n" + b"very " * 99 + b"\tpos\n",
        "{table}:2: column 'text': too long: more than sequenceL",
    ),
}
FLAGS = ["--mode=train", "--modelName=text_classify_bert", "--inputSchema=text:str:1,label:str:1", "--dryRun"]
FLAGS += ["--firstSequence=text", "--labelName=label", "--checkpointDir=run", "--sequenceLength=16", "--noTruncate"]
LABELS = "--labelEnumerateValues=neg,pos"


@pytest.fixture
def call(tmp_path, tiny_model, monkeypatch, capfd):
    """Runs the command line in a folder with a good table; returns exit code and the lines of stderr."""
    monkeypatch.chdir(tmp_path)
    Path("good.tsv").write_text(GOOD)

    def run(*arguments: str) -> tuple[int, list[str]]:
        capfd.readouterr()
        code = main([*arguments, f"--advancedParameters=pretrain_model_name_or_path={tiny_model}"])
        captured = capfd.readouterr()
        assert code == 0 or captured.out == "", "stdout carries results only"
        return code, captured.err.splitlines()

    return run


def errors_in(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("error: ")]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_used_ends_with_one_line(name, call):
    content, expected = TABLES[name]
    table = f"{name}.tsv"
    Path(table).write_bytes(content)
    for tables in (f"{table},good.tsv", f"good.tsv,{table}"):
        code, lines = call(*FLAGS, LABELS, f"--inputTable={tables}")
        (line,) = errors_in(lines)
        assert code == 3 and re.search(expected.format(table=re.escape(table)), line), line
        assert not Path("run").exists(), "nothing is written"


@pytest.mark.parametrize("name", ["comma", "too_many_cells"])
def test_labels_made_from_the_table_meet_the_same_faults(name, call):
    Path("t.tsv").write_bytes(TABLES[name][0])
    code, lines = call(*FLAGS, "--labelEnumerateValues=auto", "--inputTable=t.tsv,good.tsv")
    assert code == 3 and re.search(TABLES[name][1].format(table="t.tsv"), errors_in(lines)[0]), lines


@pytest.mark.parametrize("change", ["bom", "crlf", "delimiter", "header"])
def test_what_is_only_written_in_another_way_is_read(change, call):
    text, flags = GOOD, []
    if change == "bom":
        text = "\ufeff" + text
    elif change == "crlf":
        text = text.replace("\n", "\r\n")
    elif change == "delimiter":
        text, flags = text.replace("\t", ";"), ["--delimiter=;"]
    else:
        text, flags = "text\tlabel\n" + text, ["--header=skip"]
    Path("t.tsv").write_text(text, newline="")
    code, lines = call(*FLAGS, LABELS, "--inputTable=t.tsv,t.tsv", *flags)
    assert code == 0 and any("10 rows read, 10 used, 0 rejected" in line for line in lines), lines


@pytest.mark.parametrize(
    ("flags", "code", "expected"),
    [
        (["--labelEnumerateValues=neg,pos,neg"], 2, "labelEnumerateValues lists a label twice; got 'neg'"),
        (["--labelEnumerateValues=neg,,pos"], 2, "labelEnumerateValues has an empty label"),
        (["--labelEnumerateValues=auto", "--labelName=lable"], 2, "column 'lable' is not .*did you mean label"),
        ([LABELS, "--firstSequence=txet"], 2, "column 'txet' is not in the input schema .*; did you mean text"),
        ([LABELS, "--inputTable=god.tsv,good.tsv"], 3, "table file god.tsv does not exist; did you mean good.tsv"),
        (
            [LABELS, "--inputTable=a,b,c"],
            2,
            "--inputTable in train needs a training table, or one and an evaluation table",
        ),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(flags, code, expected, call):
    given = {flag.split("=")[0] for flag in flags}
    usual = [flag for flag in (*FLAGS, "--inputTable=good.tsv,good.tsv") if flag.split("=")[0] not in given]
    found, lines = call(*usual, *flags)
    (line,) = errors_in(lines)
    assert found == code and re.search(expected, line), line


def test_bad_rows_are_left_out_when_allowed_and_the_account_is_exact(call):
    lines = ["good\tpos", "bad\tmaybe", "film", "nice\t", "day\tneg", "x\0y\tpos", *GOOD.splitlines()]
    Path("t.tsv").write_text("".join(f"{line}\n" for line in lines))
    code, log = call(*FLAGS, LABELS, "--inputTable=t.tsv,good.tsv", "--badRows=skip")
    assert code == 0 and any("train: 16 rows read, 12 used, 4 rejected" in line for line in log), log
    code, log = call(*FLAGS, LABELS, "--inputTable=t.tsv,good.tsv", "--badRows=skip", "--maxBadRows=3")
    assert code == 3 and "more than maxBadRows=3 bad rows" in errors_in(log)[0]
    Path("c.tsv").write_bytes(TABLES["comma"][0])
    code, log = call(*FLAGS, LABELS, "--inputTable=c.tsv,good.tsv", "--badRows=skip")
    assert (
        code == 3 and "no usable row in c.tsv: 10 rows read, 10 rejected; wrong column count: 10" in errors_in(log)[0]
    )


# Every application -----------------------------------------------------------------------------------------------

VARIANTS = [
    (name, variant) for name, application in discovery.applications().items() for variant in application.variants
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_application_refuses_unusable_tables(
    name, variant, repository, tmp_path, monkeypatch, capfd, needed_runs
):
    monkeypatch.chdir(repository)
    folder = Path(discovery.__file__).parent / name / "configs"
    first = next(iter(discovery.applications()[name].variants))
    config = folder / ("smoke.yaml" if variant == first else f"smoke_{variant}.yaml")
    data, places = load_file(config)["data"], ["data.train_table"]
    if "tasks" in data:
        places = [f"data.tasks.{task}.train_table" for task in data["tasks"]]
        data = next(iter(data["tasks"].values()))
    suffix = Path(data["train_table"].split(",")[0]).suffix
    cases = {
        "empty": (b"", "is empty: it has no row|is not JSON"),
        "binary": (TABLES["picture"][0], "is not text: it looks like a PNG picture"),
        "one_cell": (b"only one cell\n", r":1: wrong column count: expected \d+, got 1|is not JSON"),
        "cells": (b"\t" * 40 + b"\n", r":1: wrong column count: expected \d+, got 41|is not JSON"),
    }
    if suffix == ".text":
        # Plain text has no cells: any line is a text, and spaces are none.
        del cases["one_cell"]
        cases["cells"] = (cases["cells"][0], "is empty: it has no row")
    for kind, (content, expected) in cases.items():
        tables = {place: tmp_path / f"{kind}_{number}{suffix}" for number, place in enumerate(places)}
        for table in tables.values():
            table.write_bytes(content)
        capfd.readouterr()
        sets = {**tables, "checkpoint_dir": tmp_path / "run", "runtime.dry_run": "true"}
        sets |= needed_runs(config)
        code = main(["train", "--config", str(config), *(f"--set={key}={value}" for key, value in sets.items())])
        captured = capfd.readouterr()
        (line,) = errors_in(captured.err.splitlines())
        assert code == 3 and str(table) in line and re.search(expected, line), (kind, line)
        assert captured.out == "" and not (tmp_path / "run").exists()


def test_prediction_meets_the_same_faults(call, capfd):
    flags = [flag for flag in FLAGS if flag not in ("--dryRun", "--noTruncate")]
    with without_export():
        code, lines = call(*flags, LABELS, "--inputTable=good.tsv,good.tsv", "--batchSize=5")
    assert code == 0, lines
    predict = ["--mode=predict", "--checkpointPath=run", "--outputTable=out.tsv", "--inputSchema=text:str:1"]
    for name, content, expected in (
        ("picture", TABLES["picture"][0], "looks like a PNG picture"),
        ("cells", b"a\tb\n", ":1: wrong column count: expected 1, got 2"),
    ):
        Path(f"{name}.tsv").write_bytes(content)
        capfd.readouterr()
        code = main([*predict, f"--inputTable={name}.tsv"])
        (line,) = errors_in(capfd.readouterr().err.splitlines())
        assert code == 3 and re.search(expected, line), line
        assert not Path("out.tsv").exists(), "no half-written table"


def test_quarantine_of_training_is_of_the_last_start_only_and_a_dry_run_writes_none(call):
    Path("mixed.tsv").write_text(f"{GOOD}one cell only\n")
    flags = [*FLAGS, LABELS, "--inputTable=mixed.tsv,good.tsv", "--badRows=quarantine", "--batchSize=5"]
    code, lines = call(*flags)
    assert code == 0 and any("11 rows read, 10 used, 1 rejected" in line for line in lines), lines
    assert not Path("run").exists()
    flags.remove("--dryRun")
    for epochs in (1, 2):
        with without_export():
            code, lines = call(*flags, f"--numEpochs={epochs}")
        assert code == 0, lines
        (line,) = Path("run/bad_rows.train.tsv").read_text().splitlines()
        assert line.startswith("mixed.tsv\t11\t") and line.endswith("one cell only")
