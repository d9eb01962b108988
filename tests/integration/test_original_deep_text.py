"""The original's commands for models on words, on its own tables, changed in paths only.

Its test folder trains `text_classify_cnn` and `text_match_dam`; the commands of the latter are run for the three other
networks too, which leave out the export.
"""

import importlib
import json
import os
from types import SimpleNamespace

import pytest
from command_line import run

SCHEMA = "example_id:int:1,content:str:1,label:str:1,label_str:str:1,keywords:str:1"
LABELS = "100,101,102,103,104,105,106,107,108,109,110,112,113,114,115,116"
PAIRS = (
    "query1:str:1,query2:str:1,query1_words:str:1,query2_words:str:1,query1_chars:str:1,query2_chars:str:1,label:str:1"
)
TEST_SCHEMA = "example_id:int:1,query1:str:1,query2:str:1,category:str:1,score:float:1"
WORKERS = ["--workerCount", "1", "--workerGPU", "1", "--workerCPU", "1"]
OUTPUT = "predictions,probabilities,logits"
CNN_ADVANCED = """'
                                fix_embedding=false
                                max_vocab_size=20000
                                num_filters=100,100,100
                                filter_sizes=3,4,5
                                dropout_rate=0.5

                                lr_decay=none
                                warmup_ratio=0.0
                                weight_decay_ratio=0
                                gradient_clip=true
                                clip_norm_value=5.0
                                throttle_secs=10
                            '
                    """
MATCH_ADVANCED = """'
                            first_sequence_length=16
                            second_sequence_length=16
                            fix_embedding=false
                            max_vocab_size=100
                            embedding_size=20
                            hidden_size=10

                            lr_decay=polynomial
                            warmup_ratio=0.1
                            weight_decay_ratio=0
                            gradient_clip=true
                            clip_norm_value=1.0
                            throttle_secs=10
                            '
                    """


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder of its own; the export that ends a training is left to the contract tests, it costs most."""
    module = importlib.import_module("appzoo.jobs.train")
    monkeypatch.setattr(
        module, "export_app", lambda app, folder, *rest, **options: SimpleNamespace(path=folder / "name" / "1")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(path, columns):
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert {len(row) for row in rows} == {columns}
    return rows


def test_textcnn(capfd, workplace, shared_data):
    tables = shared_data / "easytransfer_ut" / "ez_text_classify"
    result = run(
        capfd,
        *["--mode", "train", "--inputTable", f"{tables}/train.csv,{tables}/dev.csv", "--inputSchema", SCHEMA],
        *["--firstSequence", "content", "--labelName", "label", "--labelEnumerateValues", LABELS],
        *["--checkpointDir", "ez_text_classify_cnn_models", "--numEpochs", "1", "--batchSize", "5"],
        *["--optimizerType", "adadelta", "--learningRate", "0.1", "--modelName", "text_classify_cnn"],
        *["--distributionStrategy", "none", *WORKERS, "--advancedParameters", CNN_ADVANCED],
    )
    assert result["step"] > 0
    words = json.loads((workplace / "ez_text_classify_cnn_models" / "train_vocab.txt").read_text(encoding="utf-8"))
    assert list(words)[:6] == ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]", "[SEP]"] and len(words) > 6
    run(
        capfd,
        *["--mode", "predict", "--inputTable", tables / "dev.csv", "--outputTable", "ez_text_classify.pred.csv"],
        *["--inputSchema", SCHEMA, "--firstSequence", "content", "--appendCols", "example_id,keywords,label_str"],
        *["--outputSchema", OUTPUT, "--checkpointPath", "ez_text_classify_cnn_models/", "--batchSize", "100", *WORKERS],
    )
    rows = predicted(workplace / "ez_text_classify.pred.csv", 6)
    source = (tables / "dev.csv").read_text(encoding="utf-8").splitlines()
    assert [row[3] for row in rows] == [line.split("\t")[0] for line in source]
    assert all(row[0] in LABELS.split(",") for row in rows)


@pytest.mark.parametrize("name", ["dam", "damplus", "bicnn", "hcnn"])
def test_matching_by_words(capfd, workplace, shared_data, name):
    tables, models = shared_data / "easytransfer_ut" / "ez_text_match", f"ez_text_match_{name}_models"

    def predict(checkpoint):
        if os.path.exists("ez_text_match.pred.csv"):
            os.remove("ez_text_match.pred.csv")
        run(
            capfd,
            *["--mode", "predict", "--inputTable", tables / "test.csv", "--outputTable", "ez_text_match.pred.csv"],
            *["--inputSchema", TEST_SCHEMA, "--firstSequence", "query1", "--secondSequence", "query2"],
            *["--appendCols", "example_id,category,score,query1", "--outputSchema", OUTPUT],
            *["--checkpointPath", checkpoint, "--batchSize", "100", *WORKERS],
        )
        return predicted(workplace / "ez_text_match.pred.csv", 7)

    run(
        capfd,
        *["--mode", "train", "--inputTable", f"{tables}/train_tokenized.csv,{tables}/dev_tokenized.csv"],
        *["--inputSchema", PAIRS, "--firstSequence", "query1_words", "--secondSequence", "query2_words"],
        *["--labelName", "label", "--labelEnumerateValues", "0,1", "--checkpointDir", models],
        *["--numEpochs", "1", "--batchSize", "5", "--saveCheckpointSteps", "10000", "--optimizerType", "adam"],
        *["--learningRate", "1e-3", "--modelName", f"text_match_{name}", "--distributionStrategy", "none", *WORKERS],
        *["--advancedParameters", MATCH_ADVANCED],
    )
    assert len(json.loads((workplace / models / "train_vocab.txt").read_text(encoding="utf-8"))) <= 100
    first = predict(f"{models}/")
    last = json.loads((workplace / models / "checkpoint.json").read_text())["last"]
    assert all(row[0] in ("0", "1") for row in first)
    if name == "dam":
        run(
            capfd,
            *["--mode", "export", "--checkpointPath", f"{models}/{last}", "--exportType", "app_model"],
            *["--exportDirBase", f"{models}/saved_app_model"],
        )
        second = predict(f"{models}/saved_app_model")
        assert [row[:1] + row[3:] for row in first] == [row[:1] + row[3:] for row in second]
        # Not a command of the original, which could not preprocess for these models.
        run(
            capfd,
            *["--mode", "preprocess", "--inputTable", tables / "dev_tokenized.csv", "--outputTable", "ids.csv"],
            *["--inputSchema", PAIRS, "--firstSequence", "query1_words", "--secondSequence", "query2_words"],
            *["--checkpointPath", f"{models}/{last}", "--sequenceLength", "16", "--modelName", "text_match_dam"],
        )
        rows = predicted(workplace / "ids.csv", 5)
        assert {len(cell.split(",")) for row in rows for cell in row[:4]} == {16}
        assert {row[4] for row in rows} <= {"0", "1"}
    result = run(
        capfd,
        *["--mode", "evaluate", "--inputTable", tables / "dev_tokenized.csv", "--checkpointPath", f"{models}/{last}"],
        *["--batchSize", "100"],
    )
    assert {"accuracy", "auc", "f1"} <= result["metrics"].keys() and result["accepted"] == result["read"]
