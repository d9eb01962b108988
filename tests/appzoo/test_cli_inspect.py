"""`easy_transfer_app inspect` on tables that are counted by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from appzoo.cli.main import main
from easytransfer.data.inspection import Lengths, near_empty

TRAIN = [
    ("a good film", "pos"),
    ("a good film", "neg"),
    ("bad film", "neg"),
    ("", "neg"),
    ("x", "pos"),
    ("5 stars", "pos"),
    ("5 stars", "pos"),
]
DEV = [("bad film ", "pos"), ("a good film", "pos"), ("<b>very</b> new", "mixed")]


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    for name, rows in (("train", TRAIN), ("dev", DEV)):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    return [str(tmp_path / "train.csv"), str(tmp_path / "dev.csv")]


def facts(capfd, *words: str) -> dict:
    assert main(["inspect", *words, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_facts_of_two_tables(tables, capfd):
    found = facts(capfd, *tables)
    train, dev = found["tables"]
    assert (train["read"], train["accepted"], dev["accepted"]) == (7, 7, 3)
    assert train["labels"] == {"pos": 4, "neg": 3} and dev["labels"] == {"pos": 2, "mixed": 1}
    text = train["columns"]["text"]
    assert (text["missing"], text["near_empty"], text["different"]) == (1, 1, 4)
    assert text["words"]["mean"] == pytest.approx((3 + 3 + 2 + 1 + 2 + 2) / 6) and text["characters"]["max"] == 11
    assert found["compared"] == ["text"] and found["label"] == "label"
    assert found["repeated"]["train.csv"] == {"rows": 2, "conflicting": 2}
    # Blanks at the end of a text make no other text.
    assert found["shared"] == [{"table": "dev.csv", "with": "train.csv", "rows": 2, "conflicting": 1}]
    assert found["warnings"] == [
        "rows of the train.csv table that are there with another label, too: 2",
        "texts of the train.csv table with fewer than two letters or digits: 2",
        "rows of the dev.csv table that the train.csv table has, too: 2, with another label: 1; metrics count them as "
        "new",
        "labels of the dev.csv table that no row of the train.csv table has: mixed (1)",
    ]


def test_tokens_are_those_of_the_tokenizer(tables, tiny_model, capfd):
    from modelzoo.loading import load_tokenizer

    flags = ["--firstSequence=text", f"--pretrainedModel={tiny_model}", "--sequenceLength=4"]
    found = facts(capfd, *tables, *flags)["tables"][0]
    lengths = [len(load_tokenizer(tiny_model).tokenize(text)) + 2 for text, _ in TRAIN]
    tokens = found["tokens"]
    assert tokens["mean"] == pytest.approx(np.mean(lengths)) and tokens["max"] == max(lengths)
    assert tokens["above"] == sum(length > 4 for length in lengths) > 0
    cut = f"{tokens['above'] / 7:.1%} of the texts of the train.csv table are longer than sequenceLength=4 and are cut"
    assert main(["inspect", *tables, *flags]) == 0
    told = " ".join(capfd.readouterr().out.split())
    assert cut in told and f"{tokens['above']} ({tokens['above'] / 7:.1%})" in told


def test_a_training_command_with_another_verb(tables, tiny_model, capfd):
    words = ["--modelName=text_classify_bert", f"--inputTable={','.join(tables)}", "--firstSequence=text"]
    words += ["--labelName=label", "--checkpointDir=run", f"--set=model.pretrain_model_name_or_path={tiny_model}"]
    found = facts(capfd, *words)
    assert [each["table"] for each in found["tables"]] == ["train.csv", "dev.csv"] and found["tables"][1]["tokens"][
        "by"
    ] == str(tiny_model)


def test_the_page_has_what_the_terminal_has_and_texts_stay_text(tables, tmp_path, capfd):
    assert main(["inspect", *tables, f"--outputDir={tmp_path}/out"]) == 0
    shown = capfd.readouterr().out
    page = (tmp_path / "out" / "inspection.html").read_text(encoding="utf-8")
    for title in ("Tables", "Columns", "Labels: label", "Lengths of texts", "Rows that are there twice"):
        assert title in shown and f">{title}</h2>" in page, title
    assert ">Look at this first</h2>" in page and "<td>bad film</td>" in page
    assert "Pictures" not in page and "http" not in page.replace("http-equiv", "")
    assert re.search(r"train\.csv, row 3\W.*dev\.csv, row 1\W", page, re.DOTALL)


def test_pictures(tmp_path, capfd):
    folder = tmp_path / "pictures"
    for i, (name, size) in enumerate([("a", (8, 6)), ("b", (8, 6)), ("c", (4, 4))]):
        place = folder / ("dark" if i % 2 else "light")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9 * i, 0, 0)).save(place / f"{name}.png")
    whole = (folder / "light" / "a.png").read_bytes()
    (folder / "dark" / "again.png").write_bytes(whole)
    (folder / "dark" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dark" / "notes.txt").write_text("no picture")
    found = facts(capfd, str(folder))
    (table,) = found["tables"]
    assert table["columns"]["image"]["sizes"] == {"6x8": 3, "4x4": 1}
    assert sum(table["columns"]["image"]["broken"].values()) == 2
    # One picture is in both classes, under two names.
    assert found["compared"] == ["image"] and found["repeated"]["pictures"] == {"rows": 1, "conflicting": 2}
    assert main(["inspect", str(folder)]) == 0
    assert "cut.png" in capfd.readouterr().out


def test_rows_that_cannot_be_read_are_counted(tmp_path, capfd):
    (tmp_path / "t.tsv").write_text("1\tone\tx\nbad\n2\ttwo\ty\n")
    found = facts(capfd, f"{tmp_path}/t.tsv", "--inputSchema=id:int:1,text:str:1,label:str:1")
    (table,) = found["tables"]
    assert (table["read"], table["accepted"], table["rejected"]) == (3, 2, 1)
    assert found["warnings"] == ["rows of the t.tsv table that cannot be read: 1 (wrong column count: 1)"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "inspect needs a table"),
        (["TRAIN", "--firstSequence=txt"], 2, "did you mean text?"),
        (["TRAIN", "--nonsense=1"], 2, "unknown flag --nonsense"),
        (["TRAIN", "--pretrainedModel=x"], 2, "--firstSequence=COLUMN"),
        (["no.csv"], 3, "no.csv"),
    ],
)
def test_mistakes_are_one_line(tables, words, code, message, capfd):
    assert main(["inspect", *(tables[0] if word == "TRAIN" else word for word in words)]) == code
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]


def test_help(capfd):
    assert main(["inspect", "--help"]) == 0
    assert "--outputDir" in capfd.readouterr().out


def test_quantiles_are_those_of_numpy():
    values = np.random.default_rng(0).integers(1, 40, 333)
    lengths = Lengths()
    lengths.counts.update(values.tolist())
    for share in (0.0, 0.5, 0.95, 0.99, 1.0):
        assert lengths.quantile(share) == np.quantile(values, share, method="inverted_cdf")
    assert lengths.above(20) == (values > 20).sum()


def test_near_empty():
    assert [near_empty(text) for text in ("", "a", "!? x", "ab", "a1", "好的", "...")] == [1, 1, 1, 0, 0, 0, 1]
