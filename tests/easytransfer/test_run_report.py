"""Progress, history and log lines: what a user and a machine see of a training."""

import io
import json
import subprocess
import sys

import pytest

from easytransfer.run import log
from easytransfer.run.history import History, read_history
from easytransfer.run.progress import Progress, format_numbers, format_seconds
from easytransfer.run.report import NullReporter, Reporter, RunReporter, say_where


@pytest.fixture(autouse=True)
def fresh_logging():
    log.setup_logging()
    yield
    log.setup_logging()


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


def run(folder, steps, *, start=0, total=10, **options):
    reporter = RunReporter(folder, tensorboard=False, live=False, **options)
    reporter.start(total, start)
    for step in steps:
        reporter.step(step, {"loss": 1 / step, "lr": 1e-5, "rows": 32, "tokens": 640, "epoch": step / total})
    return reporter


def test_history_has_one_record_per_log_and_evaluation(tmp_path, capsys):
    reporter = run(tmp_path, [5, 10])
    reporter.evaluation(10, {"accuracy": 0.9, "loss": float("nan"), "is_best": True})
    reporter.end("done")
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["event"], r["step"]) for r in records] == [("step", 5), ("step", 10), ("evaluation", 10)]
    assert {"loss", "lr", "epoch", "rows_per_s", "tokens_per_s", "memory_mb", "time"} <= set(records[0])
    assert records[0]["rows_per_s"] * 20 == pytest.approx(records[0]["tokens_per_s"])
    assert records[2]["loss"] is None, "NaN is not JSON"
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "train 5/10  50%" in shown.err and "lr 1.00e-05" in shown.err and "ETA" in shown.err
    assert "evaluation after step 10: loss nan  accuracy 0.9  (best so far)" in shown.err
    assert "training done after step 10" in shown.err


@pytest.mark.parametrize(
    ("start", "said"),
    [(5, "resuming after step 5 of 10"), (10, "all 10 steps are done: nothing to train")],
)
def test_what_a_second_start_says(tmp_path, capsys, start, said):
    run(tmp_path, [], start=start).end("done")
    assert said in capsys.readouterr().err


def test_resumed_run_keeps_one_clean_history(tmp_path):
    run(tmp_path, [2, 4, 6, 8]).end("interrupted")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "st')  # killed while writing
    run(tmp_path, [6, 8, 10], start=5).end("done")
    assert [record["step"] for record in read_history(tmp_path)] == [2, 4, 6, 8, 10]
    run(tmp_path, [2]).end("done")
    assert [record["step"] for record in read_history(tmp_path)] == [2], "a new run starts a new history"


def test_evaluation_file_follows_the_history(tmp_path):
    reporter = run(tmp_path, [5])
    for step, accuracy, is_best in ((2, 0.7, True), (4, 0.6, False), (5, 0.9, True)):
        reporter.evaluation(step, {"accuracy": accuracy, "is_best": is_best})
    reporter.end("interrupted")
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored == {"best": {"step": 5, "accuracy": 0.9}, "last": {"step": 5, "accuracy": 0.9}}
    # Killed before step 5 was saved: its evaluation is made again, and may come out differently.
    reporter = run(tmp_path, [], start=4)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored == {"best": {"step": 2, "accuracy": 0.7}, "last": {"step": 4, "accuracy": 0.6}}
    reporter.end("done")
    run(tmp_path, []).end("done")
    assert not (tmp_path / "evaluation.json").exists()


def test_progress_line_has_losses_but_not_every_number(capsys):
    reporter = RunReporter(None, tensorboard=False, live=False)
    reporter.start(10)
    reporter.step(1, {"loss": 1.0, "kd_loss": 0.5, "lr": 0.1, "epoch": 0.1, "grad_norm": 3.0, "rows_per_s": 9.0})
    reporter.end("done")
    line = capsys.readouterr().err.splitlines()[0]
    assert "loss 1.0000" in line and "kd_loss 0.5" in line and "9 rows/s" in line
    assert "grad_norm" not in line and "epoch" not in line


def test_broken_history_is_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{oops\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_history(tmp_path)
    assert read_history(tmp_path / "absent.jsonl") == []


def test_rates_leave_evaluation_and_saving_out(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    reporter = RunReporter(tmp_path, tensorboard=False, live=False)
    reporter.start(100)
    clock.now += 2
    reporter.step(10, {"loss": 1.0, "rows": 320})
    clock.now += 50
    reporter.evaluation(10, {"accuracy": 0.5})
    clock.now += 30
    reporter.saved(10, "somewhere")
    clock.now += 4
    reporter.step(20, {"loss": 1.0, "rows": 320})
    reporter.end("done")
    steps = [record for record in read_history(tmp_path) if record["event"] == "step"]
    assert [record["rows_per_s"] for record in steps] == [160, 80]


def test_eta_ignores_the_compilation_before_the_first_report(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress("train", 100, live=False) as progress:
        clock.now += 60
        progress.update(10)
        clock.now += 10
        progress.update(20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("ETA 0:09:00")  # 60 s for 10 steps, 90 left
    assert lines[1].endswith("ETA 0:01:20")  # 1 s a step since then, 80 left


def test_eta_of_a_resumed_run_counts_its_own_steps(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress("train", 100, done=50, live=False) as progress:
        clock.now += 10
        progress.update(60)
    assert capsys.readouterr().err.strip().endswith("ETA 0:00:40")


def test_lines_can_be_spaced_out_but_the_last_is_shown(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress("predict", 5, live=False, min_interval_s=3) as progress:
        for done in range(1, 6):
            clock.now += 1
            progress.update(done)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["1/5", "4/5", "5/5"]


def test_unknown_total_and_numbers():
    assert format_numbers({"lr": 1e-5, "loss": 0.5, "kd_loss": 0.25, "rows_per_s": None}) == [
        "loss 0.5000",
        "lr 1.00e-05",
        "kd_loss 0.25",
    ]
    assert format_seconds(3661.4) == "1:01:01"


def test_json_log_is_one_object_a_line(tmp_path, capsys):
    log.setup_logging("json")
    reporter = run(tmp_path, [5], log_format="json")
    reporter.evaluation(5, {"accuracy": 0.5})
    reporter.saved(5, tmp_path / "model.ckpt-5")
    reporter.message("line one\nline two")
    reporter.end("done")
    log.warn("careful", column="text")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["progress", "message", "saved", "message", "message", "message"]
    assert lines[0]["done"] == 5 and lines[0]["total"] == 10 and "eta_s" in lines[0]
    assert lines[1]["accuracy"] == 0.5
    assert lines[-1]["level"] == "warning" and lines[-1]["column"] == "text"


def test_live_bar_shows_log_lines_above_itself(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("train", 10) as progress:
        progress.update(4, loss=0.5)
        log.say("evaluation [bold]is text[/bold]")
    shown = terminal.getvalue()
    assert "evaluation [bold]is text[/bold]\n" in shown and "4/10" in shown and "loss 0.5000" in shown
    log.say("after")
    assert terminal.getvalue().endswith("after\n")


def test_messages_and_warnings_go_to_stderr_and_results_to_stdout(capsys):
    log.say("hello")
    log.warn("careful")
    log.print_result({"accuracy": float("nan"), "name": "é"})
    shown = capsys.readouterr()
    assert shown.out == '{"accuracy": null, "name": "é"}\n'
    assert shown.err == "hello\nwarning: careful\n"


def test_python_warnings_are_visible_log_lines():
    code = (
        "import warnings; from easytransfer.run.log import setup_logging; setup_logging('json'); warnings.warn('mind')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    line = json.loads(done.stderr)
    assert line["level"] == "warning" and "UserWarning: mind" in line["text"] and done.stdout == ""


def test_what_libraries_print_does_not_mix_with_results(capsys):
    with log.results_only_stdout() as results:
        print("noise of a library")
        log.print_result("predictions.tsv", results)
    shown = capsys.readouterr()
    assert shown.out == "predictions.tsv\n" and "noise" in shown.err


def test_setting_up_twice_does_not_double_lines(capsys):
    log.setup_logging()
    log.setup_logging()
    log.say("once")
    assert capsys.readouterr().err == "once\n"


def test_where_things_are(capsys):
    say_where({"best checkpoint": "run/model.ckpt-7"}, {"predict": "easy_transfer_app predict"})
    shown = capsys.readouterr().err
    assert "best checkpoint  run/model.ckpt-7" in shown and shown.index("next:") < shown.index(
        "easy_transfer_app predict"
    )


def test_reporters_satisfy_the_protocol(tmp_path):
    names = [name for name in vars(Reporter) if not name.startswith("_")]
    assert names == ["start", "stage", "step", "evaluation", "saved", "message", "end"]
    for reporter in (NullReporter(), RunReporter(None, tensorboard=False, live=False)):
        reporter.start(2)
        reporter.stage(["first", "second"], 0, 0)
        reporter.step(1, {"loss": 1.0})
        reporter.evaluation(1, {"accuracy": 1.0})
        reporter.saved(1, "x")
        reporter.message("x")
        reporter.end("done")
        reporter.end("done")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_events_are_those_of_the_history(tmp_path):
    tf = pytest.importorskip("tensorflow")
    first = History(tmp_path)
    for step in (1, 2, 3):
        first.append("step", step, {"loss": step / 2, "lr": 0.1})
    first.append("evaluation", 3, {"accuracy": 0.5, "is_best": True, "auc": float("nan")})
    first.close()
    second = History(tmp_path, start_step=2)
    second.append("step", 3, {"loss": 9.0})
    second.close()
    files = list((tmp_path / "events").iterdir())
    assert len(files) == 1
    events = [tf.compat.v1.Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(files[0]))]
    assert events[0].file_version == "brain.Event:2"
    scalars = [(v.tag, e.step, v.simple_value) for e in events[1:] for v in e.summary.value]
    assert [s for s in scalars if s[0] == "train/loss"] == [
        ("train/loss", 1, 0.5),
        ("train/loss", 2, 1),
        ("train/loss", 3, 9),
    ]
    recorded = read_history(tmp_path)
    assert events[1].wall_time == recorded[0]["time"], "rewritten events keep their time"


def test_tensorboard_reads_the_events(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = History(tmp_path)
    history.append("step", 5, {"loss": 0.25})
    history.append("evaluation", 5, {"accuracy": 0.75})
    history.close()
    events = accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Tags()["scalars"] == ["train/loss", "eval/accuracy"]
    assert [(e.step, e.value) for e in events.Scalars("eval/accuracy")] == [(5, 0.75)]
