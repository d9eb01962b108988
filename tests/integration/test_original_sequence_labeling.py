"""The original's sequence-labelling commands on its own tables, changed in paths and the zoo name only."""

import json
import os

import pytest
from command_line import run

from appzoo.cli.main import main

SCHEMA = "content:str:1,ner_tags:str:1"
WORKERS = ["--workerCount", "1", "--workerGPU", "1", "--workerCPU", "1"]


@pytest.fixture(scope="module")
def tables(shared_data):
    return shared_data / "easytransfer_ut" / "ez_sequence_labeling"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original_labeling")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def trained(workplace, tables, tiny_model):
    """test_1_train_mode of the original; the path of its last checkpoint."""
    code = main(
        ["--mode", "train", "--inputTable", f"{tables}/train.csv,{tables}/dev.csv", "--inputSchema", SCHEMA]
        + ["--firstSequence", "content", "--labelName", "ner_tags"]
        + ["--labelEnumerateValues", "B-LOC,B-ORG,B-PER,I-LOC,I-ORG,I-PER,O"]
        + ["--checkpointDir", "./ez_sequence_labeling_models/", "--numEpochs", "1", "--batchSize", "5"]
        + ["--optimizerType", "adam", "--learningRate", "2e-5", "--modelName", "sequence_labeling_bert"]
        + ["--distributionStrategy", "none", *WORKERS]
        + [
            "--advancedParameters",
            f"""'
                        pretrain_model_name_or_path={tiny_model} # For BERT
                        '
                    """,
        ]
    )
    assert code == 0
    last = json.loads((workplace / "ez_sequence_labeling_models" / "checkpoint.json").read_text())["last"]
    return workplace / "ez_sequence_labeling_models" / last


def predict(capfd, tables, checkpoint) -> list[list[str]]:
    run(
        capfd,
        *["--mode", "predict", "--inputTable", tables / "dev.csv", "--outputTable", "ez_sequence_labeling.pred.csv"],
        *["--inputSchema", SCHEMA, "--firstSequence", "content", "--appendCols", "ner_tags"],
        *["--outputSchema", "predictions", "--checkpointPath", checkpoint, "--batchSize", "5", *WORKERS],
    )
    lines = open("ez_sequence_labeling.pred.csv", encoding="utf-8").read().splitlines()
    os.remove("ez_sequence_labeling.pred.csv")
    return [line.split("\t") for line in lines]


def test_predict_from_the_run_and_from_its_export_agree(capfd, workplace, tables, trained):
    rows = predict(capfd, tables, "./ez_sequence_labeling_models/")
    source = [line.split("\t") for line in (tables / "dev.csv").read_text(encoding="utf-8").splitlines()]
    assert [row[1] for row in rows] == [line[1] for line in source], "one row per input row, in order"
    assert [len(row[0].split(" ")) for row in rows] == [len(line[0].split(" ")) for line in source]
    run(capfd, "--mode", "export", "--checkpointPath", trained, "--exportDirBase", "exported")
    assert predict(capfd, tables, "exported") == rows


def test_evaluate(capfd, tables, trained):
    arguments = ["--mode", "evaluate", "--inputTable", tables / "dev.csv", "--checkpointPath", trained]
    result = run(capfd, *arguments, "--batchSize", "5")
    assert 0 <= result["metrics"]["accuracy"] <= 1 and result["accepted"] == result["read"]


def test_preprocess_writes_one_row_per_window(capfd, workplace, tables, tiny_model):
    run(
        capfd,
        *["--mode", "preprocess", "--inputTable", tables / "dev.csv", "--outputTable", "ids.csv"],
        *["--inputSchema", SCHEMA, "--firstSequence", "content", "--labelName", "ner_tags"],
        *["--labelEnumerateValues", "auto", "--sequenceLength", "32", "--modelName", "sequence_labeling_bert"],
        *["--outputSchema", "bert_finetune", "--advancedParameters", f"tokenizer_name_or_path={tiny_model}"],
    )
    rows = [line.split("\t") for line in open("ids.csv", encoding="utf-8").read().splitlines()]
    labels = [[int(label) for label in row[3].split(",")] for row in rows]
    assert {len(row) for row in labels} == {32}
    words = [len(line.split("\t")[1].split(" ")) for line in open(tables / "dev.csv", encoding="utf-8")]
    assert len(rows) > len(words) and sum(label >= 0 for row in labels for label in row) == sum(words)
