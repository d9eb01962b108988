"""The original's `ez_bert_feat` commands on its own tables, changed in paths, the zoo name, and the unknown column."""

import json
import os

import numpy as np
import pytest

from appzoo.cli.features import main
from modelzoo.importing import export_model

ONE = "example_id:int:1,query1:str:1,label:str:1,category:str:1,score:float:1"
TWO = "example_id:int:1,query1:str:1,query2:str:1,category:str:1,score:float:1"
VECTORS = "pool_output,first_token_output,all_hidden_outputs"


@pytest.fixture(scope="module")
def tables(shared_data):
    return shared_data / "easytransfer_ut" / "ez_bert_feat"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_model):
    """A folder with the model in the original's layout, as `model.ckpt` of a folder."""
    folder = tmp_path_factory.mktemp("original")
    export_model(tiny_model, folder / "google-bert-base-zh", "ez")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def run(capfd, *arguments):
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def one_sequence(capfd, tables, model, output):
    return run(
        capfd,
        *["--inputTable", tables / "one.seq.txt", "--outputTable", output, "--inputSchema", ONE],
        # The original dropped a further column `xxx` that the table has not; here that is an error.
        *["--firstSequence", "query1", "--appendCols", "example_id,label,category,score"],
        *["--outputSchema", VECTORS, "--modelName", model, "--sequenceLength", "50", "--batchSize", "1"],
    )


def rows_of(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_sequence_from_a_checkpoint_and_from_a_folder(capfd, workplace, tables, tiny_model):
    one_sequence(capfd, tables, "./google-bert-base-zh/model.ckpt", "ez_bert_feat.one.seq.results.txt")
    one_sequence(capfd, tables, tiny_model, "second.txt")
    first, second = rows_of(workplace / "ez_bert_feat.one.seq.results.txt"), rows_of(workplace / "second.txt")
    source = rows_of(tables / "one.seq.txt")
    assert first == second and len(first) == len(source)
    for row, cells in zip(first, source, strict=True):
        assert row[3:6] == [cells[0], cells[2], cells[3]] and float(row[6]) == pytest.approx(float(cells[4]), rel=1e-6)
        hidden = [np.array(token.split(","), float) for token in row[2].split(";")]
        assert len(row[0].split(",")) == 32 and {len(token) for token in hidden} == {32}
        np.testing.assert_array_equal(hidden[0], np.array(row[1].split(","), float))
        assert 3 <= len(hidden) <= min(50, len(cells[1]) + 2)


def test_two_sequences_are_packed(capfd, workplace, tables):
    run(
        capfd,
        *["--inputTable", tables / "two.seq.txt", "--outputTable", "two.txt", "--inputSchema", TWO],
        *["--firstSequence", "query1", "--secondSequence", "query2", "--appendCols", "example_id,category,score"],
        *["--outputSchema", VECTORS, "--modelName", "./google-bert-base-zh/", "--sequenceLength", "50"],
        *["--batchSize", "1"],
    )
    rows, source = rows_of(workplace / "two.txt"), rows_of(tables / "two.seq.txt")
    assert [row[3] for row in rows] == [cells[0] for cells in source]
    lengths = [row[2].count(";") + 1 for row in rows]
    assert any(length > len(cells[1]) + 2 for length, cells in zip(lengths, source, strict=True))
    assert max(lengths) <= 50


def test_the_example_script(capfd, workplace, tables, tiny_model):
    result = run(
        capfd,
        f"--inputTable={tables}/test.online.csv",
        "--inputSchema=example_id:int:1,query1:str:1,query2:str:1,category:str:1,score:float:1",
        *["--outputTable=./test.feats.csv", "--firstSequence=query1"],
        *["--appendCols=example_id,category,score,query2", "--outputSchema=pool_output"],
        *[f"--modelName={tiny_model}", "--sequenceLength=32", "--batchSize=100"],
    )
    rows, source = rows_of(workplace / "test.feats.csv"), rows_of(tables / "test.online.csv")
    assert result["written"] == len(rows) == len(source), "a .csv of the original has tabs and no header"
    assert [[row[1], row[2], row[4]] for row in rows] == [[cells[0], cells[3], cells[2]] for cells in source]
