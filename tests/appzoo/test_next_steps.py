"""The lines printed after a run made from tables of other forms: each runs as it stands and tells the rows apart."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from training import without_export

from appzoo import jobs
from appzoo.cli.main import main
from appzoo.cli.reader import JobReader

ROWS = [(f"row-{i}", ("good", "bad")[i % 2] + f" film number {i}, really", ("yes", "no")[i % 2]) for i in range(12)]


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *ROWS])


def write_tsv(path: Path) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in ROWS))


def write_dirty(path: Path) -> None:
    """A table that can be read with the settings of its training only."""
    long = "a film " * 20
    lines = ["name;words;class", *(";".join(row) for row in ROWS), f"long;{long};yes", "cut", "more;a;b;c"]
    path.write_text("".join(line + "\n" for line in lines))


def write_jsonl(path: Path) -> None:
    names = ("id", "text", "label")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))


def write_folder(path: Path) -> None:
    for number, name in enumerate(("dark", "light")):
        (path / name).mkdir(parents=True)
        for i in range(6):
            picture = np.full((8, 8, 3), 40 + 170 * number + i, np.uint8)
            Image.fromarray(picture).save(path / name / f"{i}.png")


TEXT = ["--modelName=text_classify_bert", "--firstSequence=text", "--labelName=label", "--labelEnumerateValues=yes,no"]
SCHEMA = "--inputSchema=id:str:1,text:str:1,label:str:1"
DIRTY = ["--badRows=skip", "--maxBadRows=5", "--noTruncate", "--delimiter=;", "--header=skip", "--escape"]
IMAGE = ["--modelName=image_classify", "--set=model.network=mlp8x1_digits", "--set=model.image_size=8"]
CASES = {
    "csv": (write_csv, "my table.csv", TEXT, ROWS),
    "tsv": (write_tsv, "t.tsv", [*TEXT, SCHEMA], ROWS),
    "jsonl": (write_jsonl, "t.jsonl", TEXT, ROWS),
    "dirty": (write_dirty, "t.txt", [*TEXT, SCHEMA, *DIRTY], ROWS),
    "folder": (write_folder, "pictures", IMAGE, None),
}


@pytest.fixture(params=CASES)
def case(request, tiny_model: Path, tmp_path: Path, monkeypatch, capfd) -> SimpleNamespace:
    write, name, words, rows = CASES[request.param]
    monkeypatch.chdir(tmp_path)
    write(Path(name))
    encoder = [f"--set=model.pretrain_model_name_or_path={tiny_model}", "--sequenceLength=16"]
    words = [*words, *(encoder if words[0] == TEXT[0] else [])]
    flags = [f"--inputTable={name},{name}", "--checkpointDir=my run", "--numEpochs=1", "--batchSize=4"]
    with without_export():
        jobs.train(JobReader("train", [*words, *flags], []).read().config)
    printed = [line.split("easy_transfer_app", 1) for line in capfd.readouterr().err.splitlines()]
    lines = ["easy_transfer_app" + parts[1] for parts in printed if len(parts) == 2]
    return SimpleNamespace(lines=lines, rows=rows, name=name)


def test_printed_lines_run_and_keep_the_ids(case, capfd):
    card = Path("my run", "README.md").read_text()
    assert len(case.lines) == 4 and all(f"```bash\n{line}\n```" in card for line in case.lines)
    found = {}
    for line in case.lines[:2]:
        assert main(shlex.split(line)[1:]) == 0, capfd.readouterr().err
        answer = json.loads(capfd.readouterr().out)
        found[answer["mode"]] = answer
    assert found["evaluate"]["accepted"] == found["predict"]["written"] == 12
    dirty = 3 if case.name == "t.txt" else 0
    assert found["evaluate"]["rejected"] == found["predict"]["rejected"] == dirty
    output = Path(found["predict"]["output"])
    at = found["predict"]["columns"].index("id" if case.rows else "image")
    if output.suffix == ".jsonl":
        told = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    else:
        with output.open(newline="") as file:
            told = [row[at] for row in csv.reader(file, delimiter="\t" if output.suffix == ".tsv" else ",")]
        told = told[1:] if output.suffix == ".csv" else told
    pictures = [f"{name}/{i}.png" for name in ("dark", "light") for i in range(6)]
    assert told == ([row[0] for row in case.rows] if case.rows else pictures)
    assert shlex.split(case.lines[2])[1:] == ["export", "--checkpointPath=my run", "--exportDirBase=my run/export"]
    assert shlex.split(case.lines[3])[1:] == ["serve", "my run/export"]
