"""Studies: what is searched, how trials end, and that a study or a trial that is killed goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from appzoo.cli.main import main
from appzoo.cli.tune import split_options, split_search
from appzoo.discovery import config_class
from appzoo.tuning.space import Choices, Range, read_space, with_values
from appzoo.tuning.study import StudyOptions, tune
from appzoo.tuning.trial import PROGRAM as TRAINING
from easytransfer.errors import ConfigError, EasyTransferError, Interrupted
from easytransfer.run.folder import RunFolder

pytestmark = pytest.mark.draws_nothing

STAND_IN = Path(__file__).parents[1] / "fixtures" / "training_stand_in.py"
PROGRAM = (sys.executable, str(STAND_IN))
SEARCH = "train.learning_rate=1e-6..1e-2:log"


def config_of(folder: Path, **values):
    base = {"model_name": "text_classify_cnn", "checkpoint_dir": str(folder)}
    return config_class("text_classify_cnn").model_validate(base | values)


def run_study(folder: Path, specs=(SEARCH,), trials=4, config=None, **options):
    config = config or config_of(folder)
    options = {"program": PROGRAM, "startup": 2} | options
    return tune(config, read_space(specs, config, {}), StudyOptions(trials, **options), "accuracy", [])


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db").trials


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials_of(folder)]


# What is searched ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train.learning_rate=1e-5..1e-4:log", Range(1e-5, 1e-4, log=True)),
        ("model.dropout_rate=0..0.3", Range(0.0, 0.3)),
        ("model.dropout_rate=0.1..0.5:step=0.1", Range(0.1, 0.5, step=0.1)),
        ("train.batch_size=8..64:log", Range(8, 64, log=True)),
        ("train.batch_size=8,16, 32", Choices((8, 16, 32))),
        ("train.optimizer_type=adam,sgd", Choices(("adam", "sgd"))),
        ("train.warmup_ratio", Range(0.0, 1.0)),
        ("train.nesterov", Choices((False, True))),
        ("train.lr_decay=cosine,constant", Choices(("cosine", "constant"))),
    ],
)
def test_forms_of_what_is_searched(tmp_path, spec, expected):
    ((path, found),) = read_space([spec], config_of(tmp_path), {}).items()
    assert (path, found) == (spec.partition("=")[0], expected)
    assert [type(end) for end in found.ends()] == [type(end) for end in expected.ends()]


def test_open_bounds_are_left_out(tmp_path):
    found = read_space(["model.dropout_rate"], config_of(tmp_path), {})["model.dropout_rate"]
    assert found.low == 0.0 and 0.9999 < found.high < 1.0


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("train.learning_rat=1..2", "did you mean train.learning_rate?"),
        ("train.learning_rate", "knows no two bounds"),
        ("train.learning_rate=0..1", "wrong value for --search train.learning_rate; got 0.0; accepted: float > 0"),
        ("train.learning_rate=1e-3..1e-4", "the range is empty"),
        ("train.warmup_ratio=0..1:log", "begins above 0"),
        ("train.warmup_ratio=0..1:lag", "unknown option"),
        ("train.warmup_ratio=0..1:step=0.3", "no whole number of steps"),
        ("train.batch_size=8..16.5", "accepted: whole numbers"),
        ("train.batch_size=8,8", "each once"),
        ("train.batch_size=8", "at least two"),
        ("train.optimizer_type=1..2", "where no number belongs"),
        ("data.eval_share=0.1,0.2", "cannot be searched"),
        ("data.train_table=a,b", "cannot be searched"),
        ("runtime.seed=1..9", "cannot be searched"),
        ("checkpoint_dir=a,b", "cannot be searched"),
    ],
)
def test_wrong_forms_are_refused_in_one_line(tmp_path, spec, part):
    with pytest.raises(ConfigError, match="--search") as error:
        read_space([spec], config_of(tmp_path), {})
    assert part in str(error.value) and "\n" not in str(error.value)


def test_what_a_flag_sets_is_not_searched_as_well(tmp_path):
    with pytest.raises(ConfigError, match="is searched, and given by --learningRate"):
        read_space([SEARCH], config_of(tmp_path), {"train.learning_rate": "--learningRate"})
    assert read_space([SEARCH], config_of(tmp_path), {"train.learning_rate": "job.yaml"})
    with pytest.raises(ConfigError, match="twice"):
        read_space([SEARCH, SEARCH], config_of(tmp_path), {})
    with pytest.raises(ConfigError, match="tune needs --search"):
        read_space([], config_of(tmp_path), {})


def test_a_file_may_say_what_is_searched(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "train.learning_rate: 1e-5..1e-4:log\ntrain.batch_size: [8, 16]\ntrain.warmup_ratio:\n"
        "train.lr_milestones: [[0.5, 0.75], [0.8, 0.9]]\n"
    )
    config = config_of(tmp_path)
    space = read_space([str(tmp_path / "space.yaml")], config, {})
    assert list(map(str, space.values())) == [
        *("1e-05..0.0001:log", "8 | 16", "0.0..1.0", "0.5,0.75 | 0.8,0.9"),
    ]


def test_flags_of_a_study_and_of_its_trainings():
    words = [
        "--search",
        "a=1..2",
        "b=3,4",
        "--numEpochs",
        "3",
        "--search=c",
        "--trials=5",
        "--parallel",
        "2",
        "--debug",
    ]
    specs, rest = split_search(words)
    assert specs == ["a=1..2", "b=3,4", "c"]
    options, rest = split_options(rest)
    assert (options.trials, options.parallel, options.pruner) == (5, 2, "median")
    assert rest == ["--numEpochs=3", "--debug"]
    for wrong in (["--search"], ["--search", "--trials=3"]):
        with pytest.raises(ConfigError, match="--search needs"):
            split_search(wrong)
    for wrong, part in (
        (["--trials=0"], "from 1 on"),
        (["--pruner=best"], "median, none"),
        (["--trials=1"] * 2, "twice"),
    ):
        with pytest.raises(ConfigError, match=part):
            split_options(wrong)


def test_help_and_missing_optuna(capsys, monkeypatch, tmp_path):
    assert main(["tune", "--help"]) == 0
    assert "--parallel K" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.chdir(Path(__file__).parents[2])
    words = ["--config=appzoo/text_classify/configs/smoke_cnn.yaml", f"--checkpointDir={tmp_path}/s"]
    assert main(["tune", *words, "--search", "train.warmup_ratio"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: tune needs Optuna, which is not installed; pip install 'optuna")


# Studies -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Eight trials, two at a time; one is killed in the middle, one fails."""
    folder = tmp_path_factory.mktemp("studies") / "mine"
    folder.mkdir()
    (folder / "kill-0001").touch()
    (folder / "fail-0002").touch()
    specs = (SEARCH, "train.batch_size=8,16", "model.dropout_rate=0..0.3")
    return folder, run_study(folder, specs, trials=6, parallel=2)


def test_every_trial_is_counted(study):
    folder, result = study
    trials = trials_of(folder)
    assert len(trials) == 6 and sum(result["trials"].values()) == 6
    assert trials[2].state.name == "FAIL" and trials[2].user_attrs["error"] == "the loss is not finite"
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    # The one that was killed went on where it was: two starts, four evaluations, each once.
    assert (folder / "trials/0001/starts.txt").read_text() == "xx"
    assert [trial.user_attrs.get("lost") for trial in trials].count(1) == 1


def test_values_are_those_of_the_reports_and_the_best_is_a_configuration(study, capsys):
    folder, result = study
    trials = [trial for trial in trials_of(folder) if trial.state.name == "COMPLETE"]
    for trial in trials:
        run = RunFolder(folder / "trials" / f"{trial.number:04d}")
        assert run.status == "done" and run.read_json("report.json")["metrics"]["accuracy"] == trial.value
        assert run.config["train"]["learning_rate"] == trial.params["train.learning_rate"]
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
    best = max(trials, key=lambda trial: trial.value)
    assert (result["best"]["trial"], result["best"]["value"]) == (best.number, best.value)
    values = json.loads((folder / "best.json").read_text())
    assert values["train"]["batch_size"] == best.params["train.batch_size"]
    assert values["model"]["dropout_rate"] == best.params["model.dropout_rate"]
    assert main(["config", "--check", str(folder / "best.json")]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "train"


def test_pictures_and_page(study):
    folder, result = study
    page = (folder / "study.html").read_text()
    assert result["report"] == str(folder / "study.html")
    assert (
        page.count("data:image/png") >= 3
        and "train.learning_rate" in page
        and f"trial {result['best']['trial']}" in page
    )
    for name in ("history.png", "parameters.png", "importances.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_study_goes_on_and_refuses_to_become_another(study):
    folder, result = study
    specs = (SEARCH, "train.batch_size=8,16", "model.dropout_rate=0..0.3")
    before = [trial.params for trial in trials_of(folder)]
    assert run_study(folder, specs, trials=6)["best"] == result["best"]
    assert [trial.params for trial in trials_of(folder)] == before
    with pytest.raises(ConfigError, match=r"--search train.batch_size: '8 \\| 16' -> None"):
        run_study(folder, (SEARCH,), trials=9)
    other = config_of(folder, train={"num_epochs": 2})
    with pytest.raises(ConfigError, match=r"train.num_epochs: 1.0 -> 2.0"):
        run_study(folder, specs, trials=9, config=other)
    never = config_of(folder, runtime={"resume": "never"})
    with pytest.raises(ConfigError, match="holds a study already"):
        run_study(folder, specs, trials=9, config=never)


def test_bad_trials_are_pruned(tmp_path):
    """What is below the median of the earlier trials after as many evaluations ends."""
    (tmp_path / "slow").write_text("0.4")
    run_study(tmp_path, trials=4, sampler="random", startup=1)
    trials = trials_of(tmp_path)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        at = trial.user_attrs["pruned"]
        earlier = [other.intermediate_values[at] for other in trials[: trial.number] if other.state.name == "COMPLETE"]
        assert max(trial.intermediate_values[n] for n in range(1, at + 1)) < np.median(earlier)
        assert len(trial.intermediate_values) < 4
        assert RunFolder(tmp_path / "trials" / f"{trial.number:04d}").status == "stopped"


def test_a_study_killed_in_the_middle_becomes_the_same_study(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_study(whole, trials=3, pruner="none")
    killed.mkdir()
    (killed / "slow").write_text("0.3")
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path\n"
        f"from test_tuning import run_study; run_study(Path({str(killed)!r}), trials=3, pruner='none')"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "trials/0001/metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()  # its trial goes on alone
    process.wait()
    assert states(killed) == ["COMPLETE", "RUNNING"]
    run_study(killed, trials=3, pruner="none")
    assert states(killed) == ["COMPLETE"] * 3
    assert (killed / "trials/0001/starts.txt").read_text() == "x"
    assert [trial.params for trial in trials_of(killed)] == [trial.params for trial in trials_of(whole)]
    assert [trial.value for trial in trials_of(killed)] == [trial.value for trial in trials_of(whole)]


def test_a_signal_saves_the_running_trials(tmp_path):
    (tmp_path / "slow").write_text("0.5")
    timer = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="SIGTERM stopped the study with . of 30 trials"):
        run_study(tmp_path, trials=30)
    assert states(tmp_path)[-1] == "RUNNING"
    assert RunFolder(tmp_path / f"trials/{len(states(tmp_path)) - 1:04d}").status in ("stopped", "new")


def test_a_study_whose_trials_all_fail_ends_early(tmp_path):
    for number in range(9):
        (tmp_path / f"fail-{number:04d}").touch()
    with pytest.raises(EasyTransferError, match="the first 3 trials failed, the last one with: the loss is not finite"):
        run_study(tmp_path, trials=9)
    assert states(tmp_path) == ["FAIL"] * 3


def test_settings_that_do_not_go_together_fail_the_trial_alone(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(ConfigError, match="wrong value for train.batch_size in trial 3; got 0"):
        with_values(config, {"train.batch_size": 0}, "trial 3")


def _kill_in_the_middle(study: subprocess.Popen, folder: Path, done: int) -> None:
    """Kills a study of two trials at a time with its trials, as a power cut does, while both are trained.

    Args:
        study: Its process.
        folder: Its folder.
        done: Trials that have ended by then, at least.
    """
    children = Path(f"/proc/{study.pid}/task/{study.pid}/children")
    deadline = time.monotonic() + 1800
    while study.poll() is None and time.monotonic() < deadline:
        trained = [path.parent for path in folder.glob("trials/*/metrics.jsonl")]
        going = [path for path in trained if not (path / "DONE").exists()]
        if len(trained) - len(going) >= done and len(going) == 2:
            trials = [int(pid) for pid in children.read_text().split()]
            study.kill()
            for pid in trials:
                os.killpg(pid, signal.SIGKILL)  # a trial is a session of its own
            study.wait()
            return
        time.sleep(0.2)
    raise AssertionError("the study ended before it was killed")


@pytest.mark.slow
def test_a_study_of_the_sample_is_killed_and_goes_on_with_trackers(tmp_path, capsys, monkeypatch):
    """Twelve trials, none lost or doubled, neither in the study nor in the files of MLflow and W&B."""
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(Path(__file__).parents[2])
    folder = tmp_path / "study"
    words = ["--config=appzoo/text_classify/configs/smoke_cnn.yaml", f"--checkpointDir={folder}", "--numEpochs=2"]
    words += ["--trackers=mlflow,wandb", "--trials=12", "--parallel=2", "--pruner=none", "--startup=3"]
    words += ["--search", "train.learning_rate=1e-4..1e-2:log", "train.batch_size=8,16"]
    log = tmp_path / "log"
    with open(log, "wb") as file:
        study = subprocess.Popen([*TRAINING, "tune", *words], stdout=subprocess.DEVNULL, stderr=file)
    _kill_in_the_middle(study, folder, done=4)
    assert states(folder).count("RUNNING") == 2 and len(states(folder)) < 12, log.read_text()
    before = {trial.number: (trial.params, trial.value) for trial in trials_of(folder) if trial.state.is_finished()}
    assert len(before) >= 4
    assert main(["tune", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    trials = trials_of(folder)
    assert [trial.number for trial in trials] == list(range(12)) and states(folder) == ["COMPLETE"] * 12
    assert {trial.number: (trial.params, trial.value) for trial in trials if trial.number in before} == before
    assert sorted(path.name for path in folder.glob("trials/*/")) == [f"{i:04d}" for i in range(12)] + [
        "mlruns",
        "wandb",
    ]
    for trial in trials:
        run = RunFolder(folder / "trials" / f"{trial.number:04d}")
        assert run.status == "done" and run.config["train"]["learning_rate"] == trial.params["train.learning_rate"]
        assert run.read_json("report.json")["metrics"]["accuracy"] == trial.value
    # Each trial is one run of either tracker, those that were killed too.
    identities = [json.loads((folder / f"trials/{i:04d}/tracking.json").read_text()) for i in range(12)]
    client = MlflowClient(tracking_uri=str(folder / "trials" / "mlruns"))
    experiment = client.get_experiment_by_name("easytransfer")
    tracked = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert set(tracked) == {each["mlflow"] for each in identities} and len(tracked) == 12
    for trial, each in zip(trials, identities, strict=True):
        run = tracked[each["mlflow"]]
        assert run.info.status == "FINISHED" and run.data.metrics["final/accuracy"] == pytest.approx(trial.value)
        assert run.data.params["train.learning_rate"] == str(trial.params["train.learning_rate"])
    offline = {path.name.rpartition("-")[2] for path in folder.glob("trials/wandb/offline-run-*")}
    assert offline == {each["wandb"] for each in identities} and len(offline) == 12
    # The best configuration is one that `train` takes, and gives the same again.
    best = max(trials, key=lambda trial: trial.value)
    assert (result["best"]["trial"], result["metric"]) == (best.number, "accuracy")
    assert (Path(result["best"]["run"]) / "report.html").is_file()
    assert main(["train", f"--config={result['best']['config']}"]) == 0
    again = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
    assert again == pytest.approx(best.value)
