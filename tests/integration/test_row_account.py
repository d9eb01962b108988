"""Rows in = rows out + rows rejected, through the command line, with ten kinds of broken rows."""

import json

import pytest
from fixtures.broken_table import LABELS, SCHEMA, write_broken_table

from appzoo.cli.main import main


@pytest.mark.parametrize("rows", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_every_row_is_written_or_quarantined_with_its_reason(tmp_path, capfd, tiny_model, rows):
    table = write_broken_table(tmp_path / "table.tsv", rows=rows, broken=rows // 100, unknown_labels=rows // 1000)
    output = tmp_path / "ids.tsv"
    code = main(
        ["preprocess", "--inputTable", str(table.path), "--outputTable", str(output), "--inputSchema", SCHEMA]
        + ["--firstSequence", "content", "--labelName", "label", "--labelEnumerateValues", ",".join(LABELS)]
        + ["--sequenceLength", "12", "--appendCols", "id", "--modelName", "text_classify_bert"]
        + ["--badRows", "quarantine", "--advancedParameters", f"pretrain_model_name_or_path={tiny_model}"]
    )
    captured = capfd.readouterr()
    assert code == 0, captured.err
    result = json.loads(captured.out)
    written = [int(line.split("\t")[-1]) for line in output.read_text(encoding="utf-8").splitlines()]
    quarantined = (tmp_path / "ids.tsv.bad").read_text(encoding="utf-8").splitlines()
    assert written == table.ids, "every good row, in order"
    assert len(quarantined) == rows // 100 + rows // 1000
    assert result["read"] == rows == len(written) + len(quarantined) == result["written"] + result["rejected"]


def test_bad_rows_stop_the_job_by_default(tmp_path, capfd, tiny_model):
    table = tmp_path / "table.tsv"
    table.write_text("good\tpositive\nno label here\n", encoding="utf-8")
    code = main(
        ["preprocess", "--inputTable", str(table), "--outputTable", str(tmp_path / "out.tsv")]
        + ["--inputSchema", "text:str:1,label:str:1", "--firstSequence", "text", "--modelName", "text_classify_bert"]
        + ["--advancedParameters", f"pretrain_model_name_or_path={tiny_model}"]
    )
    message = capfd.readouterr().err.splitlines()[-1]
    assert code == 3 and message.startswith("error: ") and f"{table}:2" in message and "badRows" in message
    assert not (tmp_path / "out.tsv").exists()
