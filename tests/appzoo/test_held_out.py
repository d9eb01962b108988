"""A training without an evaluation table: what it holds out, what it writes, and what is trained and measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import without_export

from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.jobs.held_out import check_divisible, held_out_record, held_out_rows, write_parts
from appzoo.jobs.tables import load_rows, values_of_column
from appzoo.jobs.trained import new_app
from easytransfer.errors import ConfigError

ROWS = [(f"the movie number {i} was {'good' if i % 2 else 'bad'}", "pos" if i % 2 else "neg") for i in range(40)]
TEXT = ["--modelName=text_classify_bert", "--firstSequence=text", "--labelName=label"]


def write_csv(path: Path) -> list[str]:
    path.write_text("id,text,label\n" + "".join(f'{i},"{text}",{label}\n' for i, (text, label) in enumerate(ROWS)))
    return [*TEXT, f"--inputTable={path}"]


def write_tsv(path: Path) -> list[str]:
    path.write_text("".join(f"{i}\t{text}\t{label}\n" for i, (text, label) in enumerate(ROWS)))
    return [*TEXT, f"--inputTable={path}", "--inputSchema=id:int:1,text:str:1,label:str:1"]


def write_jsonl(path: Path) -> list[str]:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    return [*TEXT, f"--inputTable={path}"]


def write_conll(path: Path) -> list[str]:
    tags = {"good": "B-X", "bad": "B-Y"}
    path.write_text(
        "".join("".join(f"{word} {tags.get(word, 'O')}\n" for word in text.split()) + "\n" for text, _ in ROWS)
    )
    return ["--modelName=sequence_labeling_bert", f"--inputTable={path}"]


def write_squad(path: Path) -> list[str]:
    paragraphs = [
        {"context": text, "qas": [
            {"id": f"{i}-{j}", "question": "which movie", "answers": [{"text": "movie", "answer_start": 4}]}
            for j in range(2)]}
        for i, (text, _) in enumerate(ROWS)
    ]  # fmt: skip
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return ["--modelName=text_comprehension_bert", f"--inputTable={path}"]


def write_pictures(path: Path) -> list[str]:
    for i in range(30):
        folder = path / ("dark" if i % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 5 * i, np.uint8)).save(folder / f"{i}.png")
    return ["--modelName=image_classify", f"--inputTable={path}", "--set=model.image_size=8"]


FORMS = {"t.csv": write_csv, "t.tsv": write_tsv, "t.jsonl": write_jsonl, "t.conll": write_conll, "t.json": write_squad,
         "pictures": write_pictures}  # fmt: skip


def job(words, run, tiny_model):
    # No schema and no list of labels in any of these but the TAB form, which has no header.
    words = [*words, f"--checkpointDir={run}"]
    if "image" not in words[0]:
        words += [
            f"--sequenceLength={96 if 'comprehension' in words[0] else 16}",
            f"--set=model.pretrain_model_name_or_path={tiny_model}",
        ]
    return JobReader("train", words, []).read().config


@pytest.mark.parametrize("name", FORMS)
def test_written_tables_are_the_rows_that_are_trained_and_measured(name, tmp_path, tiny_model):
    config = job(FORMS[name](tmp_path / name), tmp_path / "run", tiny_model)
    found, app = held_out_rows(config), new_app(config)
    by_label = name not in ("t.conll", "t.json")
    assert (list(found.counts) == [""]) is not by_label
    app.load_assets(None, lambda column: values_of_column(app, config.data.train_table, column))
    check_divisible(app)
    record = write_parts(app, found)
    assert record == held_out_record(config)
    whole = load_rows(app, config.data.train_table, True)
    sizes = {}
    for part, evaluation in (("train", False), ("eval", True)):
        direct = load_rows(app, config.data.train_table, True, part=found.part(evaluation))
        written = load_rows(app, record[part], True)
        sizes[part] = direct.count.read
        assert written.count == direct.count and len(written.encoded) == len(direct.encoded)
        for column, values in direct.encoded.columns.items():
            theirs = written.encoded.columns[column]
            for i in () if hasattr(values, "objects") else range(len(direct.encoded)):  # places in the table differ
                np.testing.assert_array_equal(values[i], theirs[i], err_msg=column)
    assert sizes["train"] + sizes["eval"] == whole.count.read and 0 < sizes["eval"] < sizes["train"]
    with pytest.raises(ConfigError, match="held out rows with another seed"):
        other = config.model_copy(update={"runtime": config.runtime.model_copy(update={"seed": 7})})
        app.config = other
        write_parts(app, held_out_rows(other))


def test_parquet_too(tmp_path, tiny_model):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts, labels = zip(*ROWS, strict=True)
    parquet.write_table(pyarrow.table({"text": texts, "label": labels}), tmp_path / "t.parquet")
    config = job([*TEXT, f"--inputTable={tmp_path}/t.parquet"], tmp_path / "run", tiny_model)
    assert held_out_rows(config).counts == {"neg": (20, 2), "pos": (20, 2)}


def test_a_dry_run_says_what_is_held_out_and_writes_nothing(tmp_path, tiny_model, capfd):
    words = write_csv(tmp_path / "t.csv")
    model = f"pretrain_model_name_or_path={tiny_model}"
    command = ["train", *words, f"--checkpointDir={tmp_path}/run", "--dryRun", "--advancedParameters", model]
    assert main(command) == 0
    told = capfd.readouterr().err
    assert "no evalTable: 4 of 40 rows are held out for evaluation, by label (2 classes); evalShare=0.1" in told
    assert "labels: neg (20), pos (20)" in told and "eval: 4 rows read, 4 used, 0 rejected" in told
    assert not (tmp_path / "run").exists()
    assert main([*command, "--evalShare=0.01"]) == 3
    assert "too small for rows to be held out" in capfd.readouterr().err
    assert main([*command, f"--evalTable={tmp_path}/t.csv", "--evalShare=0.2"]) == 2
    assert "data.eval_share has no meaning with data.eval_table" in capfd.readouterr().err


def test_arrays_are_not_divided(tmp_path):
    np.savez(tmp_path / "t.npz", images=np.zeros([20, 8, 8], np.uint8), labels=np.arange(20) % 2)
    config = job(
        ["--modelName=image_classify", f"--inputTable={tmp_path}/t.npz", "--set=model.image_size=8"], "run", ""
    )
    app = new_app(config)
    app.load_assets(None, lambda column: values_of_column(app, config.data.train_table, column))
    with pytest.raises(ConfigError, match="rows with arrays are not divided; .*--evalTable"):
        check_divisible(app)


@pytest.mark.slow
def test_five_flags_train_and_the_written_table_has_the_metrics_of_the_run(tmp_path, tiny_model, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = write_csv(Path("train.csv"))
    model = ["--advancedParameters", f"pretrain_model_name_or_path={tiny_model}"]
    with without_export():
        assert main(["train", *words, "--checkpointDir=run", *model]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["data"]["train"]["read"], result["data"]["eval"]["read"]) == (36, 4)
    record = json.loads(Path("run/run.json").read_text())["held_out"]
    assert record["rows"] == {"neg": {"all": 20, "held_out": 2}, "pos": {"all": 20, "held_out": 2}}
    assert main(["evaluate", "--checkpointPath=run", "--inputTable=run/held_out/eval.jsonl"]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"] == pytest.approx(result["metrics"])
    written = [json.loads(line) for part in ("train", "eval") for line in open(f"run/held_out/{part}.jsonl")]
    assert sorted((row["table_row"], row["text"], row["label"]) for row in written) == [
        (number, *row) for number, row in enumerate(ROWS, 1)
    ]


@pytest.mark.parametrize("name", ["person_reid", "stereo_matching", "lane_detection"])
def test_applications_whose_rows_belong_together_need_a_table(name, tmp_path, repository, monkeypatch):
    """Persons must not be in both parts, and maps are files of their own."""
    monkeypatch.chdir(repository)
    words = [f"--config=appzoo/{name}/configs/smoke.yaml", "--set=data.eval_table=null", f"--checkpointDir={tmp_path}"]
    config = JobReader("train", words, []).read().config
    app = new_app(config)
    app.load_parts(None, lambda column: values_of_column(app, config.data.train_table, column))
    with pytest.raises(ConfigError, match=f"{config.model_name} needs a table for evaluation: .*--evalTable"):
        check_divisible(app)
