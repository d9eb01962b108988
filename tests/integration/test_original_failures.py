"""What the original answered with a stack trace, with silence or with a wrong result, through the command line."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from appzoo.cli.main import main
from easytransfer.config.job import TrainConfig
from easytransfer.export import saved_model
from easytransfer.train.train_schedule import TrainSchedule

SCHEMA = "--inputSchema=text:str:1,score:float:1,label:str:1"
ROWS = "".join(f"{text}\t{number / 10}\t{number % 2}\n" for number, text in enumerate(["good book", "bad film"] * 6))


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs the command line in a folder with a table; returns exit code, result and the lines of stderr."""
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text(ROWS)

    def run(*arguments: str) -> tuple[int, dict, list[str]]:
        capfd.readouterr()
        code = main(list(arguments))
        captured = capfd.readouterr()
        return code, json.loads(captured.out) if code == 0 else {}, captured.err.splitlines()

    return run


def train(model, *flags: str) -> list[str]:
    given = {flag.split("=")[0] for flag in flags}
    usual = ["--mode=train", "--modelName=text_classify_bert", "--inputTable=t.tsv,t.tsv", SCHEMA, "--batchSize=8"]
    usual += ["--firstSequence=text", "--labelName=label", "--labelEnumerateValues=0,1", "--checkpointDir=run"]
    usual += ["--sequenceLength=8", f"--advancedParameters=pretrain_model_name_or_path={model}"]
    return [flag for flag in usual if flag.split("=")[0] not in given] + [flag for flag in flags if flag]


def error(lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith("error: "))
    return line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--modelName=text_clasify_bert"], "did you mean text_classify_bert"),
        (["--mode=trian"], "did you mean train"),
        (["--mode="], "mode"),
    ],
)
def test_original_wrong_names_gave_an_empty_error_after_a_trace(call, tiny_model, flags, expected):
    code, _, lines = call(*train(tiny_model, *flags))
    assert code == 2 and expected in error(lines) and not any("Traceback" in line for line in lines)


def test_original_trained_a_text_matcher_without_a_model_name(call, tiny_model):
    code, _, lines = call(*(flag for flag in train(tiny_model) if "modelName" not in flag))
    assert code == 2 and "--modelName" in error(lines)


def test_original_failed_export_ended_with_success(call, tiny_model, monkeypatch):
    """After hours of training the error was logged and swallowed."""
    failed = {"name": "answers", "ok": False, "detail": "off by one", "seconds": 0.0}
    report = {"ok": False, "checks": [failed], "latency_ms": {}}
    monkeypatch.setattr(saved_model, "validate", lambda *_, **__: report)
    code, _, lines = call(*train(tiny_model))
    line = error(lines)
    assert code == 4 and "the export fails its check `answers`; got 'off by one'" in line
    assert not any(Path("run/export").rglob("saved_model.pb")), "nothing is published"
    # The checkpoint is kept, and the printed command exports it once the cause is gone.
    command = re.search(r"easy_transfer_app (export .*)$", line)[1].split()
    assert Path("run/FAILED").exists() and Path("run/checkpoint.json").exists()
    passed = {"ok": True, "checks": [{**failed, "ok": True}], "latency_ms": {}}
    monkeypatch.setattr(saved_model, "validate", lambda *_, **__: passed)
    code, result, lines = call(*command)
    assert code == 0 and list(Path(result["export"]).glob("saved_model.pb")), lines


def test_original_regression_broke_when_the_best_checkpoint_was_exported(call, tiny_model):
    """It asked for a metric of classification after the training; and its prediction needed the model's ModelZoo."""
    shutil.copytree(tiny_model, "model")
    flags = ["--labelName=score", "--labelEnumerateValues=", "--numEpochs=2"]
    advanced = "--advancedParameters=pretrain_model_name_or_path=./model export_best_checkpoint=true"
    code, result, lines = call(*train("", *flags, advanced))
    assert code == 0 and math.isfinite(result["metrics"]["mse"]), lines
    report = json.loads(Path("run/report.json").read_text())
    assert report["metric"] == "mse"
    evaluations = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    best = min(record["mse"] for record in evaluations if record["event"] == "evaluation")
    assert result["metrics"]["mse"] == pytest.approx(best, rel=1e-5), "the lowest error is the best"
    # Where only the export is left: no ModelZoo, no model folder.
    shutil.move(result["export"], "1")
    shutil.rmtree("model")
    shutil.rmtree("run")
    code, result, lines = call(
        *["--mode=predict", "--checkpointPath=1", "--inputTable=t.tsv", "--outputTable=out.tsv", SCHEMA],
        *["--modelZooBasePath=nowhere", "--outputSchema=predictions"],
    )
    assert code == 0, lines
    values = [float(line) for line in Path("out.tsv").read_text().splitlines()]
    assert len(values) == 12 and np.ptp(values) > 0, "the values themselves, not one constant"


def test_original_said_nothing_about_a_tokenizer_for_another_language(call, tiny_model):
    Path("t.tsv").write_text("Ωμέγα θάλασσα ουρανός\t1\t0\n" * 4)
    code, _, lines = call(*train(tiny_model, "--dryRun"))
    assert code == 0 and any("of the tokens of the train table are unknown" in line for line in lines), lines
    Path("t.tsv").write_text(ROWS)
    code, _, lines = call(*train(tiny_model, "--dryRun"))
    assert code == 0 and not any("unknown" in line for line in lines), lines


def test_original_save_interval_of_a_tiny_table_was_zero():
    """It was int(rows / batch); and one step too many was made."""
    for batches, epochs, steps in ((1, 1, 1), (1, 3, 3), (4, 0.5, 2), (3, 0.001, 1), (10, 2, 20)):
        plan = TrainSchedule.of(batches, TrainConfig(num_epochs=epochs))
        assert plan.total_steps == steps
        assert plan.saves(steps), "the last step is saved"
