"""Training and evaluation on two workers from the command line, with everything that reports on them."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from appzoo.cli.main import main

PROGRAM = "from appzoo.cli.main import main; raise SystemExit(main())"


def command(repository: Path, *words: str) -> tuple[dict, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr


def command_here(repository: Path, *words: str) -> tuple[dict, str]:
    """The same of one worker, in this process: a start of TensorFlow less."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(repository), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(list(words)) == 0, err.getvalue()[-3000:]
    return json.loads(out.getvalue()), err.getvalue()


@pytest.fixture(scope="module")
def run(repository, tiny_model, tmp_path_factory) -> tuple[Path, dict, str]:
    folder = tmp_path_factory.mktemp("two") / "run"
    settings = {
        "checkpoint_dir": folder,
        "model.pretrain_model_name_or_path": tiny_model,
        "train.batch_size": 8,
        "train.num_epochs": 1,
        "train.log_step_count_steps": 5,
        "distribution.wire_dtype": "float16",
        "distribution.cycle_time_ms": 2,
    }
    words = ["train", "--config=examples/text_classify/config.yaml", "--workerCount=2", "--timeline"]
    words.append("--badRows=quarantine")
    words += [f"--set={key}={value}" for key, value in settings.items()]
    return folder, *command(repository, *words)


def test_one_result_and_every_row_once(run):
    _, result, _ = run
    assert result["mode"] == "train" and result["data"]["train"]["accepted"] == 300
    assert result["step"] == 19, "300 rows in steps of 2 * 8"


def test_only_the_first_worker_writes_and_reports(run):
    folder, _, log = run
    steps = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines() if '"step"' in line
    ]
    assert steps == sorted(steps) and log.count("training done") == 1


def test_report_says_where_the_time_went(run):
    folder, _, _ = run
    facts = json.loads((folder / "report.json").read_text())["distributed"]
    assert (facts["workers"], facts["replicas"], facts["wire_dtype"], facts["restarts"]) == (2, 2, "float16", 0)
    parts = [facts[name] for name in ("input_s", "compute_s", "exchange_s", "wait_s")]
    assert min(parts) >= 0 and facts["exchange_s"] > 0 and sum(parts) >= 0.99 * facts["step_s"]
    assert facts["bytes_per_step"] > 0
    assert (folder / "timeline.json").is_file() and (folder / "timeline.png").is_file()
    card = (folder / "README.md").read_text()
    assert "## Workers" in card and "timeline.png" in card


def test_evaluation_on_two_workers_is_that_of_one(run, repository, tmp_path):
    folder, _, _ = run
    table = tmp_path / "dev.tsv"
    lines = (repository / "examples" / "text_classify" / "dev.tsv").read_text(encoding="utf-8").splitlines()
    # Three batches for two workers, the last one smaller, and a bad row that is counted once.
    table.write_text("".join(f"{line}\n" for line in [*lines[:37], "a text without a label"]), encoding="utf-8")
    words = [f"--checkpointPath={folder}", f"--inputTable={table}", "--batchSize=16", "--badRows=quarantine"]
    results, files = [], []
    for workers in (1, 2):
        evaluate = command_here if workers == 1 else command
        result, log = evaluate(repository, "evaluate", *words, f"--workerCount={workers}")
        assert log.count("metrics written to") == 1
        results.append(result)
        files.append((folder / "bad_rows.evaluate.tsv").read_bytes())
    assert results[0] == results[1]
    assert files[0] == files[1]
    assert (results[0]["read"], results[0]["accepted"], results[0]["rejected"]) == (38, 37, 1)


@pytest.mark.parametrize("split", ["tensor_parallel", pytest.param("pipeline_stages", marks=pytest.mark.slow)])
def test_a_model_trained_in_parts_is_evaluated_whole(split, repository, tiny_model, tmp_path):
    examples, run = repository / "examples" / "text_classify", tmp_path / "run"
    settings = {"checkpoint_dir": run, "model.pretrain_model_name_or_path": tiny_model, f"distribution.{split}": 2}
    settings |= {"train.batch_size": 16, "train.num_epochs": 1, "runtime.seed": 3}
    words = ["train", f"--config={examples / 'config.yaml'}", "--workerCount=2"]
    trained, _ = command(repository, *words, *(f"--set={key}={value}" for key, value in settings.items()))
    assert trained["step"] == 19, "both workers have the same 16 of 300 rows"
    whole, _ = command_here(repository, "evaluate", f"--checkpointPath={run}", f"--inputTable={examples / 'dev.tsv'}")
    assert whole["metrics"] == pytest.approx(trained["metrics"], abs=1e-5)
