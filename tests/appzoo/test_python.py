"""`easytransfer.load` and `easytransfer.train`: the answers of the jobs they stand for, in the order of the rows."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from training import without_export

import easytransfer
from appzoo import jobs
from appzoo.cli.reader import JobReader
from appzoo.python import _words, is_frame
from easytransfer.errors import ConfigError, DataError

ROWS = [(f"{'fine good nice' if i % 2 else 'poor bad dull'} thing {i}", "pos" if i % 2 else "neg") for i in range(40)]
SETTINGS = {
    "modelName": "text_classify_cnn",
    "firstSequence": "text",
    "labelName": "label",
    "sequence_length": 8,
    "batchSize": 8,
    "advancedParameters": {"num_filters": [4], "filter_sizes": [2]},
    "set": {"runtime.seed": 3, "train.learning_rate": 0.01},
}


class Frame:
    """Has of a frame of pandas what is used of it."""

    def __init__(self, rows, index=None):
        self.rows = [dict(row) for row in rows]
        self.index = list(range(len(self.rows))) if index is None else index
        self.columns = list(self.rows[0]) if self.rows else []

    def __len__(self):
        return len(self.rows)

    def to_dict(self, form):
        assert form == "records"
        return self.rows

    def __getitem__(self, column):
        return np.array([row[column] for row in self.rows], object)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    with open(folder / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *ROWS])
    with without_export():
        model = easytransfer.train(inputTable=folder / "train.csv", checkpointDir=folder / "run", **SETTINGS)
    return folder, model


def test_a_training_returns_its_model_and_result(trained):
    folder, model = trained
    assert model.columns == ["text"] and model.labels == ["neg", "pos"]
    assert model.result["data"]["train"]["read"] == 36 and model.result["data"]["eval"]["read"] == 4
    config = json.loads((folder / "run" / "train_config.json").read_text())
    assert config["runtime"]["seed"] == 3 and config["model"]["num_filters"] == [4]
    assert repr(model).endswith("text_classify_cnn, reads text)")


def test_answers_are_those_of_predict_in_the_order_of_the_rows(trained, tmp_path):
    folder, _ = trained
    model = easytransfer.load(folder / "run", batchSize=3)
    words = [f"--checkpointPath={folder}/run", f"--inputTable={folder}/train.csv", f"--outputTable={tmp_path}/p.jsonl"]
    jobs.predict(JobReader("predict", words, []).read().config)
    expected = [json.loads(line) for line in open(tmp_path / "p.jsonl")]
    texts = [text for text, _ in ROWS]
    for rows in (texts, [(text,) for text in texts], [{"text": text, "other": 1} for text in texts]):
        found = model(rows)
        assert [row["predictions"] for row in found] == [row["predictions"] for row in expected]
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine["probabilities"], theirs["probabilities"], rtol=1e-5)
    assert model([]) == []


def test_metrics_are_those_of_the_training(trained, capfd):
    folder, model = trained
    assert model.evaluate(folder / "run" / "held_out" / "eval.jsonl") == pytest.approx(model.result["metrics"])
    assert "evaluate 4/4 100%" in capfd.readouterr().err
    held_out = [json.loads(line) for line in open(folder / "run" / "held_out" / "eval.jsonl")]
    assert model.evaluate(Frame(held_out)) == pytest.approx(model.result["metrics"])


def test_frames_go_in_and_come_out_with_their_index(trained):
    _, model = trained
    rows = [{"text": text, "id": i} for i, (text, _) in enumerate(ROWS[:3])]
    found = model(Frame(rows, index=["a", "b", "c"]))
    assert isinstance(found, Frame) and found.index == ["a", "b", "c"]
    plain = model([row["text"] for row in rows])
    assert [row["predictions"] for row in found.rows] == [row["predictions"] for row in plain]


def test_frames_of_pandas(trained, tmp_path):
    pandas = pytest.importorskip("pandas")
    folder, model = trained
    frame = pandas.DataFrame(ROWS, columns=["text", "label"], index=range(100, 140))
    found = model(frame)
    assert found.index.tolist() == frame.index.tolist()
    assert found["predictions"].tolist() == [row["predictions"] for row in model([text for text, _ in ROWS])]
    assert model.evaluate(frame) == pytest.approx(model.evaluate(folder / "train.csv"))


@pytest.mark.slow
def test_a_frame_is_trained_on_as_its_table_is(trained, tmp_path):
    _, model = trained
    frame = Frame([{"text": text, "label": label} for text, label in ROWS])
    with without_export():
        same = easytransfer.train(inputTable=frame, checkpointDir=tmp_path / "run", **SETTINGS)
    assert same.result["metrics"] == pytest.approx(model.result["metrics"])
    assert (tmp_path / "run" / "frames" / "inputTable-0.jsonl").is_file()


def test_what_is_wrong_is_told_as_on_the_command_line(trained, tmp_path):
    folder, model = trained
    with pytest.raises(ConfigError, match="called with several rows; got 'str'; put it into a list"):
        model("a text")
    with pytest.raises(ConfigError, match="a value for each column that the model reads; .*accepted: text"):
        model([("a", "b")])
    with pytest.raises(ConfigError, match="column 'text' is not in the rows"):
        model([{"txt": "a"}])
    with pytest.raises(DataError, match="rows:2: column 'text': missing value"):
        model([{"text": "a"}, {"text": None}])
    with pytest.raises(ConfigError, match="unknown flag --batchSiz; did you mean --batchSize"):
        easytransfer.load(folder / "run", batchSiz=3)
    with pytest.raises(ConfigError, match="mode train needs --inputTable=train,eval"):
        easytransfer.train(modelName="text_classify_cnn", checkpointDir=tmp_path / "x")
    with pytest.raises(ConfigError, match="frames are kept in the run folder; give checkpointDir"):
        easytransfer.train(modelName="text_classify_cnn", inputTable=Frame([{"text": "a"}]))


def test_settings_are_flags():
    words = [
        ("numEpochs", 2, ["--numEpochs=2"]),
        ("overwrite", True, ["--overwrite=true"]),
        ("inputTable", ["a", "b"], ["--inputTable=a,b"]),
        ("evalTable", None, []),
        (
            "set",
            {"train.batch_size": 4, "data.label_name": None},
            ["--set=train.batch_size=4", "--set=data.label_name=null"],
        ),
        ("advancedParameters", {"a": [1], "b": "x y"}, ['--advancedParameters={"a": [1], "b": "x y"}']),
    ]
    assert [list(_words(name, value)) for name, value, _ in words] == [expected for *_, expected in words]
    assert is_frame(Frame([{"a": 1}])) and not any(map(is_frame, ("x", [1], {"a": 1}, None)))


def test_the_import_is_light_and_training_keeps_its_name():
    lines = [
        "import easytransfer, sys",
        "first = easytransfer.train",
        "assert callable(first) and 'tensorflow' not in sys.modules and 'pydantic' not in sys.modules",
        "import easytransfer.train.signals",
        "assert easytransfer.train is first",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
