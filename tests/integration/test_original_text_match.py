"""The original's commands for matching with an encoder, on its own tables, changed in paths and the zoo name only."""

import json
import os

import numpy as np
import pytest
from command_line import run

from appzoo.cli.features import main as features
from appzoo.cli.main import main

SCHEMA = "example_id:int:1,query1:str:1,query2:str:1,is_same_question:str:1,category:str:1,score:float:1"
TEST_SCHEMA = "example_id:int:1,query1:str:1,query2:str:1,category:str:1,score:float:1"
WORKERS = ["--workerCount", "1", "--workerGPU", "1", "--workerCPU", "1"]
PLAIN = """'
                            pretrain_model_name_or_path={model} # For BERT
                            {more}
                            '
                    """
ALL_KEYS = """save_steps=300
                            log_step_count_steps=100
                            throttle_secs=100
                            keep_checkpoint_max=10
                            lr_decay=polynomial
                            warmup_ratio=0.1
                            weight_decay_ratio=0
                            gradient_clip=true
                            num_accumulated_batches=1
                            eval_batch_size=256"""
# Run folder -> model and the keys of its test beside the pre-trained model.
RUNS = {
    "ez_text_match_models": ("text_match_bert", ALL_KEYS),
    "ez_text_match_two_tower_models": ("text_match_bert_two_tower", ""),
    "ez_text_match_projected_models": ("text_match_bert_two_tower", "projection_dim=128"),
}


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


@pytest.fixture(scope="module", params=RUNS)
def trained(request, workplace, tables, tiny_model):
    """test_1_train_bert and the two trainings of test_6_test_bert_two_tower; the path of the last checkpoint."""
    model, more = RUNS[request.param]
    match = tables / "ez_text_match"
    code = main(
        ["--mode", "train", "--inputTable", f"{match}/train.csv,{match}/dev.csv", "--inputSchema", SCHEMA]
        + ["--firstSequence", "query1", "--secondSequence", "query2", "--labelName", "is_same_question"]
        + ["--labelEnumerateValues", "0,1", "--checkpointDir", request.param, "--numEpochs", "1", "--batchSize", "5"]
        + ["--saveCheckpointSteps", "10000", "--optimizerType", "adam", "--learningRate", "2e-5"]
        + ["--modelName", model, "--distributionStrategy", "MirroredStrategy", *WORKERS]
        + ["--advancedParameters", PLAIN.format(model=tiny_model, more=more)]
    )
    assert code == 0
    run = workplace / request.param
    return run / json.loads((run / "checkpoint.json").read_text())["last"]


def export_of_training(trained):
    """Training ends with an export; that of the original's two towers raised not implemented."""
    (version,) = (trained.parent / "export").glob("*/1")
    return version


def predict(capfd, workplace, tables, checkpoint) -> list[list[str]]:
    """test_2_predict_mode."""
    output = workplace / "ez_text_match.pred.csv"
    run(
        capfd,
        *["--mode", "predict", "--inputTable", tables / "ez_text_match" / "test.csv", "--outputTable", output.name],
        *["--inputSchema", TEST_SCHEMA, "--firstSequence", "query1", "--secondSequence", "query2"],
        *["--appendCols", "example_id,category,score,query1", "--outputSchema", "predictions,probabilities,logits"],
        *["--checkpointPath", checkpoint, "--batchSize", "100", *WORKERS],
    )
    rows = [line.split("\t") for line in output.read_text(encoding="utf-8").splitlines()]
    output.unlink()
    return rows


def test_predict_from_the_run_and_from_its_export_agree(capfd, workplace, tables, trained):
    folder = trained.parent.name
    if folder == "ez_text_match_models":
        first = predict(capfd, workplace, tables, folder)
        run(
            capfd,
            *["--mode", "export", "--checkpointPath", trained, "--exportType", "app_model"],
            *["--exportDirBase", f"{folder}/saved_app_model"],
        )
        second = predict(capfd, workplace, tables, f"{folder}/saved_app_model")
    else:
        first = predict(capfd, workplace, tables, trained)
        second = predict(capfd, workplace, tables, export_of_training(trained))
    source = (tables / "ez_text_match" / "test.csv").read_text(encoding="utf-8").splitlines()
    assert [row[3] for row in first] == [line.split("\t")[0] for line in source], "one row per input row, in order"
    assert {len(row) for row in first} == {7} and {row[0] for row in first} <= {"0", "1"}
    assert [row[0] for row in first] == [row[0] for row in second]
    for ours, theirs in zip(first, second, strict=True):
        for place in (1, 2):
            numbers = [[float(cell) for cell in row[place].split(",")] for row in (ours, theirs)]
            assert numbers[0] == pytest.approx(numbers[1], abs=2e-5)


def test_evaluate(capfd, tables, trained):
    result = run(
        capfd,
        *["--mode", "evaluate", "--inputTable", tables / "ez_text_match" / "dev.csv"],
        *["--checkpointPath", trained, "--batchSize", "100"],
    )
    assert result["metrics"].keys() >= {"accuracy", "auc", "f1"} and result["accepted"] == result["read"]
    assert ("recall_at_10" in result["metrics"]) == (trained.parent.name != "ez_text_match_models")


def test_preprocess_writes_both_sides(capfd, workplace, tables, tiny_model):
    """The fifth mode, for which the original had no match test: the two towers had no id table at all."""
    result = run(
        capfd,
        *["--mode", "preprocess", "--inputTable", tables / "ez_text_match" / "dev.csv", "--outputTable", "ids.csv"],
        *["--inputSchema", SCHEMA, "--firstSequence", "query1", "--secondSequence", "query2"],
        *["--labelName", "is_same_question", "--labelEnumerateValues", "0,1", "--sequenceLength", "16"],
        *["--modelName", "text_match_bert_two_tower", "--appendCols", "example_id"],
        *["--advancedParameters", f"tokenizer_name_or_path={tiny_model}"],
    )
    assert {"input_ids", "input_mask", "input_ids_b", "input_mask_b", "label_id"} <= set(result["columns"])
    rows = [line.split("\t") for line in (workplace / "ids.csv").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == result["read"]
    place = result["columns"].index("input_ids_b")
    assert {len(row[place].split(",")) for row in rows} == {16}


def extract(capfd, workplace, tables, model, append="example_id,label,category,score"):
    """The `ez_bert_feat` command of test_5 and test_6; the original dropped the unknown column `xxx` in silence."""
    output = workplace / "ez_text_match.feats.txt"
    capfd.readouterr()
    code = features(
        ["--inputTable", str(tables / "ez_bert_feat" / "one.seq.txt"), "--outputTable", output.name]
        + ["--inputSchema", "example_id:int:1,query1:str:1,label:str:1,category:str:1,score:float:1"]
        + ["--firstSequence", "query1", "--appendCols", append]
        + ["--outputSchema", "pool_output,first_token_output,all_hidden_outputs"]
        + ["--modelName", str(model), "--sequenceLength", "50", "--batchSize", "1"]
    )
    error = capfd.readouterr().err
    if code:
        return code, error
    rows = [line.split("\t") for line in output.read_text(encoding="utf-8").splitlines()]
    output.unlink()
    return 0, rows


def test_features_and_the_vectors_of_the_export(capfd, workplace, tables, trained):
    """test_5_ez_bert_feat, and the end of test_6 for the towers that were trained last."""
    import tensorflow as tf

    folder, tower = trained.parent.name, trained.parent.name == "ez_text_match_projected_models"
    if folder == "ez_text_match_two_tower_models":
        pytest.skip("the original extracts from the towers with a projection only")
    run(
        capfd,
        *["--mode", "export", "--checkpointPath", trained, "--exportType", "ez_bert_feat"],
        *["--exportDirBase", f"{folder}/saved_model"],
    )
    model = f"{folder}/saved_model" if tower else trained
    code, error = extract(capfd, workplace, tables, model, "example_id,label,category,score,xxx")
    assert code == 2 and "xxx" in error
    code, rows = extract(capfd, workplace, tables, model)
    assert code == 0 and {len(row) for row in rows} == {7}
    if not tower:
        return
    source = (tables / "ez_bert_feat" / "one.seq.txt").read_text(encoding="utf-8").splitlines()
    signatures = tf.saved_model.load(str(export_of_training(trained))).signatures
    texts = tf.constant([line.split("\t")[1] for line in source])
    a, b = (signatures[f"vectors_{side}"](text=texts)["vector"].numpy() for side in "ab")
    assert np.array_equal(a, b)
    found = np.array([row[0].split(",") for row in rows], float)
    np.testing.assert_allclose(found, a, atol=1e-5)
    assert a.shape == (len(source), 128)


def test_original_export_of_two_towers_raised_not_implemented(trained):
    import tensorflow as tf

    signatures = set(tf.saved_model.load(str(export_of_training(trained))).signatures)
    towers = {"vectors_a", "vectors_b"} if trained.parent.name != "ez_text_match_models" else set()
    assert signatures >= {"serving_default", "predict_ids"} | towers
