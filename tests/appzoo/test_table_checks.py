"""What a training warns of its tables: counted by hand, in one line each, and nowhere where all is well."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from appzoo.cli.reader import JobReader
from appzoo.jobs.table_checks import TableChecks
from easytransfer.distributed.workers import ONE_WORKER

train = importlib.import_module("appzoo.jobs.train")

TRAIN = [("the movie is good", "pos"), ("the movie is good", "neg"), ("bad movie", "neg"), ("ok movie", "pos"),
         ("ok movie", "pos"), ("!", "neg")]  # fmt: skip
DEV = [("bad movie ", "pos"), ("ok movie", "pos"), ("new words", "odd"), ("x", "neg")]
FINE = ([("the movie is good", "pos"), ("bad movie", "neg")], [("ok movie", "pos"), ("not ok", "neg")])


def loaded(folder: Path, tables, tiny_model, *flags: str, name: str = "text_classify_bert"):
    for part, rows in zip(("train", "dev"), tables, strict=True):
        (folder / f"{part}.csv").write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    words = [f"--modelName={name}", "--firstSequence=text", "--labelName=label"]
    words += [f"--inputTable={folder}/train.csv,{folder}/dev.csv", f"--checkpointDir={folder}/run"]
    words += [f"--set=model.pretrain_model_name_or_path={tiny_model}", *flags]
    (folder / "run").mkdir(exist_ok=True)
    return train._load(JobReader("train", words, []).read().config, folder / "run", ONE_WORKER)[1]


def warnings(capfd) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]


def test_one_line_each(tmp_path, tiny_model, capfd, monkeypatch):
    # A tokenizer of few words warns of words that it does not know, which is not what this is about.
    monkeypatch.setattr("appzoo.jobs.text_counts.UNKNOWN_WARNING", 1.0)
    flags = ["--labelEnumerateValues=neg,pos,odd", "--sequenceLength=5"]
    tables = loaded(tmp_path, (TRAIN, DEV), tiny_model, *flags)
    cut = tables["train"].text["truncated"]
    assert cut >= 2
    expected = [
        "warning: rows of the train table that are there with another label, too: 2",
        "warning: rows of the eval table that the train table has, too: 2, with another label: 1; metrics count them "
        "as new",
        "warning: labels of the eval table that no row of the train table has: odd (1)",
        f"warning: {cut / 6:.1%} of the texts of the train table are longer than sequenceLength=5 and are cut",
        "warning: texts of the train table with fewer than two letters or digits: 1",
        "warning: texts of the eval table with fewer than two letters or digits: 1",
    ]
    found = warnings(capfd)
    assert [line for line in found if "eval table are longer" not in line] == expected
    # What is trained on is the same without them.
    monkeypatch.setattr(TableChecks, "watch", lambda self, part: None)
    plain = loaded(tmp_path, (TRAIN, DEV), tiny_model, *flags)
    for part in ("train", "eval"):
        for name, values in plain[part].encoded.columns.items():
            for i in range(len(plain[part].encoded)):
                np.testing.assert_array_equal(values[i], tables[part].encoded.columns[name][i])


def test_nothing_where_all_is_well(tmp_path, tiny_model, capfd, monkeypatch):
    monkeypatch.setattr("appzoo.jobs.text_counts.UNKNOWN_WARNING", 1.0)
    loaded(tmp_path, FINE, tiny_model)
    assert warnings(capfd) == []


def test_a_row_without_a_label_has_no_other_label(tmp_path, tiny_model, capfd, monkeypatch):
    monkeypatch.setattr("appzoo.jobs.text_counts.UNKNOWN_WARNING", 1.0)
    (tmp_path / "source.csv").write_text("text,label\nold,pos\n")
    tables = [*FINE[0], ("ok movie", "")], FINE[1]
    loaded(tmp_path, tables, tiny_model, f"--sourceTable={tmp_path}/source.csv", name="domain_transfer")
    shared = "warning: rows of the eval table that the train table has, too: 1; metrics count them as new"
    assert warnings(capfd) == [shared]


def test_a_score_that_differs_is_no_other_label(tmp_path, tiny_model, capfd, monkeypatch):
    monkeypatch.setattr("appzoo.jobs.text_counts.UNKNOWN_WARNING", 1.0)
    rows = [("the movie is good", 1.5), ("the movie is good", 1.75), ("bad movie", 0.5)]
    loaded(tmp_path, (rows, [("fine", 0.5)]), tiny_model)
    assert warnings(capfd) == []


@pytest.mark.parametrize("name", ["image_classify"])
def test_pictures_are_not_looked_at(name, tmp_path):
    from appzoo.jobs.trained import new_app

    config = JobReader("train", [f"--modelName={name}", "--inputTable=t", "--set=model.image_size=8"], []).read().config
    app = new_app(config)
    app.load_assets(None, lambda column: iter(["a", "b"]))
    assert TableChecks(app).watch("train") is None
