"""The original's text-classification commands on its own tables, changed in paths and the zoo name only."""

import json
import os

import pytest
from command_line import run

from appzoo.cli.main import main

SCHEMA = "example_id:int:1,content:str:1,label:str:1,label_str:str:1,keywords:str:1"
LABELS = "100,101,102,103,104,105,106,107,108,109,110,112,113,114,115,116"
WORKERS = ["--workerCount", "1", "--workerGPU", "1", "--workerCPU", "1"]
ADVANCED = """'
                            pretrain_model_name_or_path={model} # For BERT
                            log_step_count_steps=100
                            throttle_secs=100
                            keep_checkpoint_max=10
                            lr_decay=polynomial
                            warmup_ratio=0.1
                            weight_decay_ratio=0
                            gradient_clip=true
                            num_accumulated_batches=1
                            eval_batch_size=256
                            '
                    """


@pytest.fixture(scope="module")
def tables(shared_data):
    return shared_data / "easytransfer_ut"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def train(capfd, tables, model, name, advanced, *arguments):
    return run(
        capfd,
        *["--mode", "train", "--checkpointDir", name, "--numEpochs", "1", "--batchSize", "5"],
        *["--optimizerType", "adam", "--learningRate", "2e-5", "--modelName", "text_classify_bert"],
        *WORKERS,
        *["--advancedParameters", advanced.format(model=model)],
        *arguments,
    )


@pytest.fixture(scope="module")
def trained(workplace, tables, tiny_model):
    """test_1_train_mode of the original; the path of its last checkpoint."""
    classify = tables / "ez_text_classify"
    code = main(
        ["--mode", "train", "--inputTable", f"{classify}/train.csv,{classify}/dev.csv", "--inputSchema", SCHEMA]
        + ["--firstSequence", "content", "--labelName", "label", "--labelEnumerateValues", LABELS]
        + ["--checkpointDir", "ez_text_classify_models", "--numEpochs", "1", "--batchSize", "5"]
        + ["--optimizerType", "adam", "--learningRate", "2e-5", "--modelName", "text_classify_bert"]
        + ["--distributionStrategy", "none", *WORKERS, "--advancedParameters", ADVANCED.format(model=tiny_model)]
    )
    assert code == 0
    last = json.loads((workplace / "ez_text_classify_models" / "checkpoint.json").read_text())["last"]
    return workplace / "ez_text_classify_models" / last


def predicted(path, columns):
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert {len(row) for row in rows} == {columns}
    return rows


def predict_dev(capfd, tables, checkpoint):
    return run(
        capfd,
        *["--mode", "predict", "--inputTable", tables / "ez_text_classify" / "dev.csv"],
        *["--outputTable", "ez_text_classify.pred.csv", "--inputSchema", SCHEMA, "--firstSequence", "content"],
        *["--appendCols", "example_id,keywords,label_str", "--outputSchema", "predictions,probabilities,logits"],
        *["--checkpointPath", checkpoint, "--batchSize", "100", *WORKERS],
    )


def test_predict_from_the_run_and_from_its_export_agree(capfd, workplace, tables, trained):
    predict_dev(capfd, tables, "ez_text_classify_models/")
    first = predicted(workplace / "ez_text_classify.pred.csv", 6)
    os.remove("ez_text_classify.pred.csv")
    run(
        capfd,
        *["--mode", "export", "--checkpointPath", trained, "--exportType", "app_model"],
        *["--exportDirBase", "ez_text_classify_models/saved_app_model/"],
    )
    predict_dev(capfd, tables, "ez_text_classify_models/saved_app_model")
    second = predicted(workplace / "ez_text_classify.pred.csv", 6)
    source = (tables / "ez_text_classify" / "dev.csv").read_text(encoding="utf-8").splitlines()
    assert [row[3] for row in first] == [line.split("\t")[0] for line in source], "one row per input row, in order"
    assert all(row[0] in LABELS.split(",") for row in first)
    # The run predicts with its best checkpoint, which is the last one here: one evaluation was made.
    assert [row[0] for row in first] == [row[0] for row in second]


def test_evaluate(capfd, tables, trained):
    result = run(
        capfd,
        *["--mode", "evaluate", "--inputTable", tables / "ez_text_classify" / "dev.csv"],
        *["--checkpointPath", trained, "--batchSize", "100"],
    )
    assert 0 <= result["metrics"]["accuracy"] <= 1 and result["accepted"] == result["read"]


def test_continue_training(capfd, tables, trained, tiny_model):
    classify = tables / "ez_text_classify"
    advanced = "'\n pretrain_model_name_or_path={model} # For BERT\n init_checkpoint_path=" + str(trained) + "\n '"
    result = train(
        capfd, tables, tiny_model, "ez_text_classify_continue_models", advanced,
        *["--inputTable", f"{classify}/train.csv,{classify}/dev.csv", "--inputSchema", SCHEMA],
        *["--firstSequence", "content", "--labelName", "label", "--labelEnumerateValues", LABELS],
        *["--distributionStrategy", "none"],
    )  # fmt: skip
    assert result["step"] > 0


def test_multi_label(capfd, workplace, tables, tiny_model):
    classify = tables / "ez_text_classify"
    schema = "example_id:int:1,content:str:1,accusations:str:1,articles:str:1"
    advanced = "'\n multi_label=true\n max_num_labels=5\n pretrain_model_name_or_path={model} # For BERT\n '"
    train(
        capfd, tables, tiny_model, "ez_text_classify_multi_label_models", advanced,
        *["--inputTable", f"{classify}/train.multi_label.csv,{classify}/dev.multi_label.csv"],
        *["--inputSchema", schema, "--firstSequence", "content", "--labelName", "accusations"],
        *["--labelEnumerateValues", classify / "multi_labels.txt", "--distributionStrategy", "none"],
    )  # fmt: skip
    result = run(
        capfd,
        *["--mode", "predict", "--inputTable", classify / "dev.multi_label.csv"],
        *["--outputTable", "multi.pred.csv", "--inputSchema", schema, "--firstSequence", "content"],
        *["--appendCols", "example_id,accusations,articles", "--outputSchema", "predictions,probabilities,logits"],
        *["--checkpointPath", "ez_text_classify_multi_label_models/", "--batchSize", "100", *WORKERS],
    )
    rows = predicted(workplace / "multi.pred.csv", 6)
    assert len(rows) == result["read"] and len(rows[0][1].split(",")) == 15


def test_regression(capfd, workplace, tables, tiny_model):
    match = tables / "ez_text_match"
    schema = "example_id:int:1,query1:str:1,query2:str:1,is_same_question:str:1,category:str:1,score:float:1"
    result = train(
        capfd, tables, tiny_model, "ez_regression_models", ADVANCED.replace("log_step", "save_steps=300\n log_step"),
        *["--inputTable", f"{match}/train.csv,{match}/dev.csv", "--inputSchema", schema],
        *["--firstSequence", "query1", "--labelName", "score", "--saveCheckpointSteps", "10000"],
        *["--distributionStrategy", "MirroredStrategy"],
    )  # fmt: skip
    assert result["metrics"]["mse"] >= 0


def test_preprocess_writes_id_tables_in_order(capfd, workplace, tables, tiny_model):
    result = run(
        capfd,
        *["--mode", "preprocess", "--inputTable", tables / "ez_text_classify" / "dev.csv"],
        *["--outputTable", "ids.csv", "--inputSchema", SCHEMA, "--firstSequence", "content", "--labelName", "label"],
        *["--labelEnumerateValues", LABELS, "--sequenceLength", "16", "--modelName", "text_classify_bert"],
        *["--outputSchema", "bert_finetune", "--appendCols", "example_id"],
        *["--advancedParameters", f"tokenizer_name_or_path={tiny_model}"],
    )
    rows = predicted(workplace / "ids.csv", 5)
    assert len(rows) == result["read"] == result["written"]
    assert all(len(row[0].split(",")) == len(row[1].split(",")) == 16 for row in rows)
