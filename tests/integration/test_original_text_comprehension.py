"""The original's comprehension commands on its own tables, changed in paths and the zoo name only."""

import json
import os

import pytest
from command_line import run

SCHEMA = "context:str:1,question:str:1,answer:str:1"
IDS = "input_ids:int:384,input_mask:int:384,segment_ids:int:384"
POSITIONS = "start_position:int:1,end_position:int:1"
WORKERS = ["--workerCount", "1", "--workerGPU", "1", "--workerCPU", "1"]
COLUMNS = ["--firstSequence", "context", "--secondSequence", "question"]


@pytest.fixture(scope="module")
def tables(shared_data):
    return shared_data / "easytransfer_ut" / "ez_text_comprehension"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny encoder with the 384 positions the commands ask for and an English vocabulary."""
    from modelzoo.bert.backbone import BertBackbone
    from modelzoo.bert.config import BertConfig
    from modelzoo.loading import load_tokenizer

    tokenizer = load_tokenizer("minilm-l6-en")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=384,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("zoo") / "tiny-bert-384"
    BertBackbone(config).save_to_preset(folder, tokenizer)
    return folder


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def preprocess(capfd, table, output, name, columns, advanced):
    result = run(
        capfd,
        *["--mode", "preprocess", "--inputTable", table, "--outputTable", output, "--inputSchema", SCHEMA, *COLUMNS],
        *["--labelName", "answer", "--sequenceLength", "384", "--modelName", name, "--outputSchema", columns],
        *["--batchSize", "100", "--advancedParameters", advanced],
    )
    with open(output, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    assert len(rows) == result["written"] and {len(row) for row in rows} == {len(columns.split(","))}
    assert {len(cell.split(",")) for row in rows for cell in row[:3]} == {384}
    return result, rows


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t") for line in file]


def test_single_questions_from_id_tables_to_evaluation(capfd, tables, model):
    """test_1_train_mode, test_2_predict_mode and test_3_evaluate_mode of the original."""
    columns = "input_ids,input_mask,segment_ids,start_position,end_position"
    advanced = f"'tokenizer_name_or_path={model} max_query_length=64'"
    for part, questions in (("train", 15), ("dev", 55)):
        result, rows = preprocess(
            capfd, tables / f"{part}.csv", f"serialization.{part}.csv", "text_comprehension_bert", columns, advanced
        )
        assert result["read"] == questions and result["rejected"] == 0
        assert any(int(row[3]) > 0 for row in rows) and all(int(row[3]) <= int(row[4]) for row in rows)
    result = run(
        capfd,
        *["--mode", "train", "--inputTable", "serialization.train.csv,serialization.dev.csv"],
        *["--inputSchema", f"{IDS},{POSITIONS}", "--sequenceLength", "384"],
        *["--checkpointDir", "ez_text_comprehension_models", "--numEpochs", "1", "--batchSize", "5"],
        *["--optimizerType", "adam", "--learningRate", "2e-5", "--modelName", "text_comprehension_bert"],
        *["--advancedParameters", f"'\n pretrain_model_name_or_path={model} # For BERT\n '\n"],
    )
    assert {"start_accuracy", "end_accuracy", "window_accuracy"} <= result["metrics"].keys()
    result = run(
        capfd,
        *["--mode", "predict", "--inputTable", tables / "dev.csv", "--outputTable", "ez_text_comprehension.pred.csv"],
        *["--inputSchema", SCHEMA, *COLUMNS, "--outputSchema", "qas_id,predictions"],
        *["--checkpointPath", "ez_text_comprehension_models", "--batchSize", "100", *WORKERS],
    )
    found = rows_of("ez_text_comprehension.pred.csv")
    lines = (tables / "dev.csv").read_text(encoding="utf-8").splitlines()
    asked = [part for line in lines for part in line.split("\t")[1].split("||")[1::2]]
    assert [row[0] for row in found] == asked and result["written"] == result["read"] == 55
    contexts = [line.split("\t")[0] for line in lines for _ in line.split("\t")[1].split("||")[1::2]]
    assert all(row[1] and row[1] in context for row, context in zip(found, contexts, strict=True))
    last = json.loads(open("ez_text_comprehension_models/checkpoint.json").read())["last"]
    result = run(
        capfd,
        *["--mode", "evaluate", "--inputTable", "./serialization.dev.csv"],
        *["--checkpointPath", f"ez_text_comprehension_models/{last}", "--batchSize", "100"],
    )
    assert 0 <= result["metrics"]["window_accuracy"] <= 1 and result["accepted"] == result["read"]


def test_question_ids_are_appended_as_in_the_script_of_the_original(capfd, tables):
    """scripts/text_comprehension/run_text_comprehension_bert.sh predict, on the model of the test before."""
    run(
        capfd,
        *["--mode=predict", f"--inputTable={tables / 'dev.csv'}", f"--inputSchema={SCHEMA}"],
        *["--outputTable=./dev.pred.csv", "--firstSequence=context", "--secondSequence=question"],
        *["--appendCols=qas_id", "--outputSchema=predictions", "--checkpointPath=./ez_text_comprehension_models/"],
        "--batchSize=32",
    )
    first, second = rows_of("ez_text_comprehension.pred.csv"), rows_of("dev.pred.csv")
    assert second == [[text, name] for name, text in first]


def test_conversations_from_id_tables_to_prediction(capfd, tables, model):
    """test_4_train_bert_hae of the original."""
    columns = "input_ids,input_mask,segment_ids,history_answer_marker,start_position,end_position"
    advanced = f"'tokenizer_name_or_path={model} max_query_length=64 doc_stride=128'"
    for part in ("train", "dev"):
        result, rows = preprocess(
            capfd, tables / f"{part}.multi.csv", f"turns.{part}.csv", "text_comprehension_bert_hae", columns, advanced
        )
        assert result["rejected"] == 0 and result["written"] > result["read"]
        assert any("1" in row[3].split(",") for row in rows)
    run(
        capfd,
        *["--mode", "train", "--inputTable", "turns.train.csv,turns.dev.csv"],
        *["--inputSchema", f"{IDS},history_answer_marker:int:384,{POSITIONS}", "--sequenceLength", "384"],
        *["--checkpointDir", "ez_text_comprehension_hae_models", "--numEpochs", "1", "--batchSize", "5"],
        *["--optimizerType", "adam", "--learningRate", "2e-5", "--modelName", "text_comprehension_bert_hae"],
        *["--distributionStrategy", "none", *WORKERS],
        *["--advancedParameters", f"'\n pretrain_model_name_or_path={model} # For BERT\n '\n"],
    )
    result = run(
        capfd,
        *["--mode", "predict", "--inputTable", tables / "dev.multi.csv"],
        *["--outputTable", "ez_text_comprehension_hae.pred.csv", "--inputSchema", SCHEMA, *COLUMNS],
        *["--labelName", "answer", "--sequenceLength", "384", "--outputSchema", "qas_id,unique_id,predictions"],
        *["--checkpointPath", "./ez_text_comprehension_hae_models/", "--batchSize", "100", *WORKERS],
    )
    found = rows_of("ez_text_comprehension_hae.pred.csv")
    assert result["written"] == result["read"] == len(found) == 41 == len({row[1] for row in found})
    assert all(len(row) == 3 and row[2] for row in found)
