"""Trackers of experiments, offline with local stores: what they get of a run, once, also when the run goes on."""

import json
import os
import struct
import time
from pathlib import Path

import pytest

from appzoo.cli.main import main
from appzoo.discovery import config_class
from easytransfer.config.tracking import TrackingConfig
from easytransfer.errors import ConfigError, Interrupted, ResourceError
from easytransfer.run.history import read_history
from easytransfer.run.report import RunReporter
from easytransfer.run.tracking import TRACKING_FILE, Tracking, check_tracking, open_tracking

pytestmark = pytest.mark.draws_nothing

SETTINGS = {"model_name": "toy", "train": {"batch_size": 8, "lr_milestones": [0.5]}, "serving": {"token": "hunter2"}}
REPORT = {"metrics": {"accuracy": 0.75, "loss": 0.5}, "checkpoint_step": 40}


class Memory:
    """A tracker that remembers."""

    key = "mlflow"

    def __init__(self, breaks=False):
        self.points, self.ended, self.breaks = [], None, breaks

    def metrics(self, step, time, values):
        if self.breaks:
            raise OSError("no route to host\nmore")
        self.points += [(step, name, value) for name, value in values.items()]

    def result(self, values, step, files):
        self.final = values, step, files

    def end(self, status):
        self.ended = status


def records(*steps):
    return [{"event": "step", "step": step, "loss": 1 / step, "time": 0.0} for step in steps]


def losses(memory):
    return [(step, value) for step, name, value in memory.points if name == "train/loss"]


def test_steps_that_are_repeated_are_sent_once_and_the_last_record_again():
    """Killed after step 30 with a checkpoint of step 10: 20 and 30 are done again with the same numbers."""
    memory = Memory()
    tracking = Tracking([memory], known=["mlflow"])
    tracking.begin(records(10, 20, 30), start_step=10)
    for record in records(20, 30, 40):
        tracking.add(record)
    assert losses(memory) == [(30, 1 / 30), (40, 1 / 40)]


def test_steps_that_are_repeated_with_other_settings_are_sent_again():
    memory = Memory()
    tracking = Tracking([memory], known=["mlflow"], same=False)
    tracking.begin(records(10, 20, 30), start_step=10)
    tracking.add(records(20)[0])
    assert losses(memory) == [(30, 1 / 30), (20, 1 / 20)]


def test_a_tracker_that_is_new_to_a_run_gets_what_is_kept():
    memory = Memory()
    tracking = Tracking([memory])
    tracking.begin(records(10, 20, 30), start_step=20)
    tracking.add(records(30)[0])
    assert losses(memory) == [(10, 1 / 10), (20, 1 / 20), (30, 1 / 30)]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "done"), (Interrupted("stop"), "interrupted"), (ValueError("no"), "failed")]
)
def test_how_a_run_ends(error, status, tmp_path):
    memory = Memory()
    try:
        with Tracking([memory]) as tracking:
            tracking.complete(REPORT, [tmp_path / "absent"])
            if error is not None:
                raise error
    except (Interrupted, ValueError):
        pass
    assert memory.ended == status
    assert memory.final == ({"final/accuracy": 0.75, "final/loss": 0.5}, 40, [])


def test_a_tracker_that_breaks_is_left_out(capsys):
    memory = Memory(breaks=True)
    with Tracking([memory]) as tracking:
        tracking.begin([], 0)
        for record in records(10, 20):
            tracking.add(record)
    assert capsys.readouterr().err == "warning: MLflow failed and gets no more of this run: no route to host\n"
    assert memory.ended is None


def test_missing_packages_and_the_network_are_refused_in_one_line(monkeypatch, tmp_path, capsys):
    check_tracking(TrackingConfig(trackers=["mlflow", "wandb"]), offline=True)
    away = [
        {"trackers": "mlflow", "mlflow_uri": "https://example.org"},
        {"trackers": "wandb", "wandb_mode": "online"},
    ]
    for settings in away:
        with pytest.raises(ConfigError, match="sends the run over the network; add --offline=false"):
            check_tracking(TrackingConfig(**settings), offline=True)
        check_tracking(TrackingConfig(**settings), offline=False)
    with pytest.raises(ValueError, match="each at most once"):
        TrackingConfig(trackers="wandb,wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"MLflow is not installed.*; pip install 'mlflow-skinny") as error:
        check_tracking(TrackingConfig(trackers="mlflow"), offline=True)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"Weights & Biases is not installed.*; pip install 'wandb"):
        check_tracking(TrackingConfig(trackers="wandb"), offline=True)


def test_the_setting_and_its_flag():
    config = config_class("text_classify_bert").model_validate({"tracking": {"trackers": "mlflow,wandb"}})
    assert config.tracking.trackers == ["mlflow", "wandb"] and config.tracking.wandb_mode == "offline"


def run(folder: Path, name: str, start: int, steps, error=None) -> None:
    """Reports a run as a training does, from a step on."""
    folder.mkdir(exist_ok=True)
    tracking = TrackingConfig(trackers=[name], project="words")
    try:
        with open_tracking(tracking, folder, SETTINGS, offline=True, resuming=start > 0) as opened:
            reporter = RunReporter(folder, tensorboard=False, live=False, tracking=opened)
            reporter.start(40, start)
            for step in steps:
                reporter.step(step, {"loss": 1 / step, "lr": 0.1})
            reporter.evaluation(steps[-1], {"accuracy": steps[-1] / 100, "is_best": True})
            reporter.end("done")
            if error:
                raise error
            (folder / "report.html").write_text("the report")
            opened.complete(REPORT, [folder / "report.html"])
    except Interrupted:
        pass


def stopped_and_continued(folder: Path, name: str) -> None:
    """Stops after step 30, goes on from the checkpoint of step 20."""
    run(folder, name, 0, [10, 20, 30], Interrupted("stop"))
    time.sleep(1.1)  # folders of W&B are named by the second
    run(folder, name, 20, [30, 40])


def log_records(data: bytes):
    """Yields the records of a file of W&B: the log format of LevelDB, blocks of 32 KiB, behind seven bytes."""
    at, begun = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        begun += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def written(file: Path, kind):
    """Returns the records of a file once its last one is there: a process of W&B's own writes it."""
    for _ in range(100):
        records = [kind.FromString(data) for data in log_records(file.read_bytes())]
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def test_mlflow_in_a_local_store(tmp_path):
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "mine"
    run(folder, "mlflow", 0, [10, 20, 30], Interrupted("stop"))
    client = MlflowClient(tracking_uri=str(tmp_path / "mlruns"))
    (identity,) = [json.loads((folder / TRACKING_FILE).read_text())["mlflow"]]
    assert client.get_run(identity).info.status == "KILLED"
    run(folder, "mlflow", 20, [30, 40])
    experiment = client.get_experiment_by_name("words")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_id == identity and tracked.info.run_name == "mine"
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params == {
        "model_name": "toy",
        "train.batch_size": "8",
        "train.lr_milestones": "[0.5]",
        "serving.token": "***",
    }
    curve = {metric.step: metric.value for metric in client.get_metric_history(identity, "train/loss")}
    assert curve == {record["step"]: record["loss"] for record in read_history(folder) if record["event"] == "step"}
    steps = [metric.step for metric in client.get_metric_history(identity, "train/loss")]
    assert sorted(steps) == [10, 20, 30, 40]
    assert tracked.data.metrics["final/accuracy"] == 0.75 and tracked.data.metrics["eval/accuracy"] == 0.4
    assert [file.path for file in client.list_artifacts(identity)] == ["report.html"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true" and os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    stopped_and_continued(folder, "wandb")
    identity = json.loads((folder / TRACKING_FILE).read_text())["wandb"]
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert files and {file.name for file in files} == {f"run-{identity}.wandb"}
    curve, settings, summary = [], {}, {}
    for file in files:
        for record in written(file, wandb_internal_pb2.Record):
            row = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            if "train/loss" in row:
                curve.append((row["step"], row["train/loss"]))
            settings |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
            summary |= {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.summary.update}
    assert sorted(set(curve)) == [(step, 1 / step) for step in (10, 20, 30, 40)] and len(curve) == 4
    assert settings["train.batch_size"] == 8 and settings["serving.token"] == "***"
    assert summary["final/accuracy"] == 0.75
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/report.html")
    assert kept.read_text() == "the report"


def test_a_store_that_takes_no_run_is_told_before_training(tmp_path):
    (tmp_path / "mlruns").write_text("a file")
    with pytest.raises(ResourceError, match="MLflow does not take the run: "):
        open_tracking(TrackingConfig(trackers=["mlflow"]), tmp_path / "mine", SETTINGS, offline=True)


@pytest.mark.slow
def test_a_training_is_tracked(tmp_path, capsys, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(Path(__file__).parents[2])
    words = [
        "--config=appzoo/text_classify/configs/smoke_cnn.yaml",
        f"--checkpointDir={tmp_path}/mine",
        "--numEpochs=2",
    ]
    assert main(["train", *words, "--trackers=mlflow,wandb"]) == 0
    result = json.loads(capsys.readouterr().out)
    client = MlflowClient(tracking_uri=str(tmp_path / "mlruns"))
    identity = json.loads((tmp_path / "mine" / TRACKING_FILE).read_text())["mlflow"]
    tracked = client.get_run(identity)
    assert tracked.info.status == "FINISHED" and tracked.data.params["train.num_epochs"] == "2.0"
    assert tracked.data.metrics["final/accuracy"] == pytest.approx(result["metrics"]["accuracy"])
    assert {file.path for file in client.list_artifacts(identity)} == {"README.md", "report.html", "report.json"}
    assert list(tmp_path.glob("wandb/offline-run-*/files/report.html"))
