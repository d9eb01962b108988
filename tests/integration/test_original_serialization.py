"""The original's serialization commands on its own table, changed in paths and the zoo name only."""

import os

import pytest
from command_line import run

SCHEMA = "example_id:int:1,content:str:1,label:str:1,label_str:str:1,keywords:str:1"
LABELS = "100,101,102,103,104,105,106,107,108,109,110,112,113,114,115,116"
WORKERS = ["--workerCount", "1", "--workerGPU", "1", "--workerCPU", "1"]


@pytest.fixture
def table(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shared_data / "easytransfer_ut" / "ez_text_classify" / "dev.csv"


def serialize(capfd, table, model, columns, *arguments):
    result = run(
        capfd,
        *["--mode", "preprocess", "--inputTable", table, "--outputTable", "serialization.pred.csv"],
        *["--inputSchema", SCHEMA, "--firstSequence", "content", "--modelName", model],
        *["--appendCols", "example_id,keywords,label_str", "--outputSchema", columns, *arguments],
        *["--batchSize", "100", *WORKERS],
    )
    with open("serialization.pred.csv", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    source = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    assert result["written"] == len(rows) == len(source)
    # The original's 16 threads wrote the rows in any order.
    assert [row[-3:] for row in rows] == [[cells[0], cells[4], cells[3]] for cells in source]
    assert all(len(row[i].split(",")) == 128 for row in rows for i in range(3))
    return rows, source


def test_serialization_finetune(capfd, table, tiny_model):
    labels = ["--labelName", "label", "--labelEnumerateValues", LABELS]
    columns = "input_ids,input_mask,segment_ids,label_id"
    rows, source = serialize(capfd, table, tiny_model, columns, *labels)
    assert [LABELS.split(",")[int(row[3])] for row in rows] == [cells[2] for cells in source]


def test_serialization_predict(capfd, table, tiny_model):
    rows, _ = serialize(capfd, table, tiny_model, "input_ids,input_mask,segment_ids")
    assert {len(row) for row in rows} == {6}
    again = os.path.getsize("serialization.pred.csv")
    os.remove("serialization.pred.csv")
    serialize(capfd, table, tiny_model, "bert_predict")
    assert os.path.getsize("serialization.pred.csv") == again, "the alias names the same columns"


def test_original_rows_came_back_in_any_order(capfd, table, tiny_model):
    """Chunks are far smaller than the table, so that threads could overtake each other."""
    from appzoo.jobs import resumable_output as parts
    from easytransfer.app.contract import App

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(App, "chunk_rows", 7)
        patch.setattr(parts.Output.write, "__kwdefaults__", parts.Output.write.__kwdefaults__ | {"chunk_rows": 7})
        serialize(capfd, table, tiny_model, "input_ids,input_mask,segment_ids")
