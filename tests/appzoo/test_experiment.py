"""Experiments: arms, what is trained and what is not repeated, what exports cost, means, tests, table and page."""

import json
import os
import re
import shlex
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from appzoo.cli.experiment import experiment, seeds_of, split_own
from appzoo.cli.main import main
from appzoo.discovery import applications, config_class
from appzoo.experiment.cost import filled
from appzoo.experiment.domains import computed_points, domains_picture, main_components, points, read_texts
from appzoo.experiment.plan import PlannedArm, planned_arms
from appzoo.experiment.run import ArmResult, Processes, run_experiment
from appzoo.experiment.summary import as_json, cost_picture, differences, mean_and_spread
from appzoo.tuning.space import with_values
from easytransfer.config.job import RuntimeConfig
from easytransfer.errors import ConfigError, EasyTransferError, Interrupted, ModelError
from easytransfer.metrics.paired import seeds_difference
from easytransfer.presets import resolve
from easytransfer.run.folder import RunFolder

pytestmark = pytest.mark.draws_nothing

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests" / "fixtures" / "training_stand_in.py"
_MEASURED = {"parameters": 1200, "bytes": 2_500_000, "ms_1": 0.5, "ms_32": 4.0, "devices": ["CPU"], "cpus": 2}
_POINTS = {"before": {"points": {"source": [[0.0, 1.0]], "target": [[1.0, 0.0], [2.0, 2.0]]}, "shares": [0.5, 0.25]}}


def printing(value) -> tuple[str, ...]:
    return sys.executable, "-c", f"print({json.dumps(value)!r})"


PROCESSES = Processes((sys.executable, str(STAND_IN)), printing(_MEASURED), printing(_POINTS))
RATES = {"slow": 1e-5, "right": 1e-4, "fast": 1e-3}


def config_of(name: str, **values):
    return config_class(name).model_validate({"model_name": name, **values})


def student(variant: str, **distillation):
    data = {"eval_table": "dev.tsv"}
    return config_of(f"distillation_text_{variant}", distillation=distillation, data=data)


def arms_of_rates(*names: str) -> list[PlannedArm]:
    base = config_of("text_classify_cnn")
    return [PlannedArm(name, name, with_values(base, {"train.learning_rate": RATES[name]})) for name in names]


def run(folder: Path, *names: str, seeds=(1, 2, 3), **options):
    arms = arms_of_rates(*(names or ("slow", "right")))
    return run_experiment(folder, arms, seeds, [], processes=PROCESSES, **options)


# Arms ----------------------------------------------------------------------------------------------------------


def test_the_baselines_of_domain_transfer_run_beside_the_configured_algorithm():
    config = config_of("domain_transfer", transfer={"algorithm": "rtl"})
    arms = planned_arms(config)
    assert [arm.name for arm in arms] == ["source_only", "target_only", "joint", "rtl"]
    assert [arm.config.transfer.algorithm for arm in arms] == [arm.name for arm in arms]
    assert arms[3].what == "transfer.algorithm=rtl"
    joint = planned_arms(config_of("domain_transfer", transfer={"algorithm": "joint"}))
    assert [arm.name for arm in joint] == ["source_only", "target_only", "joint"]
    assert [arm.name for arm in planned_arms(config, ["dann", "reweight"])] == ["dann", "reweight"]


@pytest.mark.parametrize("variant", ["bert", "cnn"])
def test_the_plain_student_has_no_teacher_and_the_teacher_is_not_trained(tmp_path, variant):
    given = {"teacher": str(tmp_path), "kd_loss": "kld"}
    given |= {"probes": True, "hidden_weight": 1.0} if variant == "bert" else {"kd_teacher_logits": "cached"}
    config = student(variant, **given)
    plain, learning, teacher = planned_arms(config)
    assert [plain.name, learning.name, teacher.name] == ["plain", "student", "teacher"]
    assert not plain.config.distillation.needs_teacher and plain.config.distillation.teacher is None
    assert plain.config.model == config.model and plain.config.train == config.train
    assert learning.config.model_dump() == config.model_dump() and learning.what == "as configured"
    assert teacher.config is None and teacher.finished == tmp_path


def test_an_application_without_arms_has_one():
    (arm,) = planned_arms(config_of("text_classify_cnn"))
    assert arm.name == "text_classify_cnn" and arm.what == "as configured"


def test_arms_of_every_application_fit_its_configuration():
    declared = 0
    for application in applications().values():
        for variant, config in application.variants.items():
            for name, arm in application.arms(variant).items():
                declared += 1
                assert name.isidentifier()
                with_values(config.model_validate({"model_name": name}), arm.settings)
    assert declared >= 14


@pytest.mark.parametrize(
    ("config", "names", "part"),
    [
        (config_of("domain_transfer"), ["dan"], "domain_transfer has no such arm; got 'dan'; accepted: source_only,"),
        (config_of("domain_transfer"), ["dann", "dann"], "an arm is named twice"),
        (student("cnn", kd_loss="none"), ["plain", "student"], "plain and student are the same training"),
        (student("cnn"), [], "the arm teacher is a finished run, and distillation.teacher names none"),
        (student("cnn", teacher="nowhere"), [], "and there is none; got 'nowhere'"),
        (student("cnn", teacher=str(ROOT)), ["teacher"], "no arm of the experiment is trained"),
        (config_of("distillation_text_cnn", distillation={"teacher": str(ROOT)}), [], "on the evaluation table"),
    ],
)
def test_wrong_arms_are_refused_in_one_line(config, names, part):
    with pytest.raises(ConfigError) as error:
        planned_arms(config, names)
    assert part in str(error.value) and "\n" not in str(error.value)


# Runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two arms with three seeds; one run was killed in the middle."""
    folder = tmp_path_factory.mktemp("experiments") / "mine"
    (folder.parent / "kill-right-2").touch()
    with pytest.raises(Interrupted, match=r"run 4 of 6, right with seed 2 was stopped \(exit code -9\); type the same"):
        run(folder)
    return folder, run(folder)


def test_every_arm_has_a_run_of_every_seed_and_none_is_repeated(finished):
    folder, results = finished
    for result in results:
        assert list(result.runs) == [1, 2, 3] and result.metric == "accuracy" and result.cost == _MEASURED
        for seed, place in result.runs.items():
            found = RunFolder(place)
            assert place == folder / f"{result.name}-{seed}" and found.status == "done"
            assert found.config["runtime"]["seed"] == seed
            assert found.config["train"]["learning_rate"] == RATES[result.name]
            assert found.read_json("report.json")["metrics"] == result.metrics[seed]
            # The one that was killed went on where it was; those that had ended were left alone.
            assert (place / "starts.txt").read_text() == ("xx" if place.name == "right-2" else "x")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*-cost.json")}
    again = run(folder)
    assert [each.metrics for each in again] == [each.metrics for each in results] and len(before) == 2
    assert before == {path: path.stat().st_mtime_ns for path in before}, "not measured anew"


def test_more_seeds_and_arms_are_added_and_other_settings_are_refused(finished):
    folder, results = finished
    more = run(folder, "right", "fast", seeds=(2, 4))
    assert [list(each.runs) for each in more] == [[2, 4], [2, 4]]
    assert more[0].metrics[2] == results[1].metrics[2]
    assert (folder / "right-2" / "starts.txt").read_text() == "xx"
    other = [PlannedArm("slow", "slow", with_values(config_of("text_classify_cnn"), {"train.num_epochs": 2}))]
    with pytest.raises(ConfigError, match=r"slow-1 is of other settings \(train.learning_rate: .*num_epochs: 1.0 -> 2"):
        run_experiment(folder, other, (1,), [], processes=PROCESSES)
    with pytest.raises(ConfigError, match="holds runs of these arms already; --overwrite"):
        run(folder, resume="never")
    with pytest.raises(ConfigError, match="holds a run, not an experiment"):
        run(folder / "slow-1")


def test_overwrite_trains_these_arms_anew_and_resume_must_needs_some(tmp_path):
    folder = tmp_path / "e"
    with pytest.raises(ConfigError, match="no experiment to resume"):
        run(folder, resume="must")
    run(folder, seeds=(1,))
    run(folder, "right", seeds=(1,), overwrite=True)
    assert (folder / "right-1" / "starts.txt").read_text() == "x"
    done = RunFolder(folder / "slow-1")
    (done.path / "model.ckpt-4").touch()
    done.write_json("run.json", {"inputs": [{"table": "training", "path": "t.tsv", "sha256": "before"}]})
    now = [{"table": "training", "path": "t.tsv", "sha256": "now"}]
    with pytest.raises(
        ConfigError, match="the training table has changed since the run in .*slow-1 was started: t.tsv"
    ):
        run_experiment(folder, arms_of_rates("slow"), (1,), now, processes=PROCESSES)
    (folder / "slow-2").mkdir()
    with pytest.raises(ConfigError, match="slow-2 is not of an experiment"):
        run(folder, seeds=(1, 2))


def test_a_failure_names_arm_seed_and_log(tmp_path):
    (tmp_path / "fail-right-1").touch()
    message = r"run 2 of 2, right with seed 1 failed: the loss is not finite; see .*right-1.log"
    with pytest.raises(EasyTransferError, match=message):
        run(tmp_path / "e", seeds=(1,))
    (tmp_path / "fail-right-1").unlink()
    assert [each.name for each in run(tmp_path / "e", seeds=(1,))] == ["slow", "right"]
    assert (tmp_path / "e" / "slow-1" / "starts.txt").read_text() == "x"


def test_a_signal_saves_the_running_training(tmp_path):
    (tmp_path / "slow").write_text("0.5")
    timer = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="SIGTERM stopped the experiment with . of 40 runs"):
        run(tmp_path / "e", seeds=range(20))
    (tmp_path / "slow").unlink()
    assert {RunFolder(place).status for place in (tmp_path / "e").glob("*-*") if place.is_dir()} <= {
        "stopped",
        "done",
        "new",
    }


def test_what_is_finished_is_evaluated_on_the_same_table_and_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dev.tsv").write_text("a\tb\n")
    (teacher,) = run(tmp_path / "teachers", "right", seeds=(1,))
    config = student("cnn", teacher=str(teacher.runs[1]))
    arms = planned_arms(config)
    results = run_experiment(tmp_path / "e", arms, (1, 2), [], processes=PROCESSES)
    assert results[2].metrics == {None: {"accuracy": 0.9}} and results[2].runs == {} and results[2].cost == _MEASURED
    job = json.loads((tmp_path / "e" / "teacher.json").read_text())
    assert job["mode"] == "evaluate" and job["data"]["input_table"] == "dev.tsv"
    assert job["checkpoint_path"] == str(teacher.runs[1] / "export" / "stand_in" / "1")
    (shown,) = [arm for name, arm in as_json(results)["arms"].items() if name == "teacher"]
    assert shown["metrics"]["accuracy"] == {"mean": 0.9, "spread": None} and shown["runs"] == {}
    assert "teacher" not in differences(results), "one value has no pairs"


# What comes out ------------------------------------------------------------------------------------------------


def arm(name: str, values: list[float | None], cost: dict | None = None) -> ArmResult:
    metrics = {seed: {"accuracy": value} for seed, value in enumerate(values, 1)}
    return ArmResult(name, name, {seed: Path(f"{name}-{seed}") for seed in metrics}, metrics, "accuracy", cost)


def test_mean_and_spread_by_hand():
    assert mean_and_spread(arm("a", [0.5, 0.75, 1.0]), "accuracy") == (0.75, 0.25)
    assert mean_and_spread(arm("a", [0.5]), "accuracy") == (0.5, None)
    assert mean_and_spread(arm("a", [0.5, None]), "accuracy") is None, "not the mean of some runs"
    assert mean_and_spread(arm("a", [0.5]), "auc") is None


def test_students_t_of_the_pairs_by_hand():
    """Differences 1, 2, 3: mean 2, error 1/sqrt(3), t 3.464; with 2 degrees of freedom the 97.5% point is 4.303."""
    found = seeds_difference("f1", {1: 1.0, 2: 2.0, 3: 3.0, 9: 0.0}, {1: 2.0, 2: 4.0, 3: 6.0, 8: 5.0})
    assert found.difference == 2.0 and found.test == "paired t"
    assert found.low == pytest.approx(2 - 4.30265 / 3**0.5, abs=1e-4) and found.high == pytest.approx(4.48414, abs=1e-4)
    # The two tails of t with 2 degrees of freedom: 1 - t / sqrt(t^2 + 2).
    assert found.p == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert seeds_difference("f1", {1: 1.0}, {1: 2.0}) is None
    equal = seeds_difference("f1", {1: 0.1, 2: 0.2}, {1: 0.4, 2: 0.5})
    assert equal.difference == pytest.approx(0.3) and np.isnan([equal.low, equal.high, equal.p]).all()


def test_arms_are_tested_against_the_first_one():
    found = differences([arm("a", [0.5, 0.6, 0.7]), arm("b", [0.6, 0.8, 1.0]), arm("c", [0.6])])
    assert list(found) == ["b"] and found["b"].difference == pytest.approx(0.2)


def test_a_batch_is_made_of_samples_whose_texts_have_the_full_length():
    samples = {"input_ids": np.array([[5, 6], [7, 0]], np.int32), "regions": np.ones((2, 3, 4), np.float32)}
    samples |= {"label": np.array([1, 2], np.int32), "fixed": np.array([[1, 2], [3, 4]], np.int32)}
    shapes = {"input_ids": [None, None], "regions": [None, None, 4], "label": [None], "fixed": [None, 2]}
    found = filled(samples, shapes, 3, 5)
    assert found["input_ids"].tolist() == [[5, 6, 5, 6, 5], [7, 0, 7, 0, 7], [5, 6, 5, 6, 5]]
    assert found["regions"].shape == (3, 3, 4) and found["label"].tolist() == [1, 2, 1]
    assert found["fixed"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert filled(samples, shapes, 1, None)["input_ids"].tolist() == [[5, 6]]


def test_the_picture_has_a_point_for_each_measured_arm():
    cost = {"parameters": 1, "bytes": 4_000_000, "ms_1": 1.0, "ms_32": 2.0}
    larger = {**cost, "bytes": 8_000_000, "ms_32": 6.0}
    figure = cost_picture([arm("a", [0.5, 0.7], cost), arm("b", [0.8], larger), arm("c", [0.1])])
    points = [
        [tuple(float(x[0]) for x in line.lines[0].get_data()) for line in panel.containers] for panel in figure.axes
    ]
    assert np.allclose(points, [[(4, 0.6), (8, 0.8)], [(1, 0.6), (1, 0.8)], [(2, 0.6), (6, 0.8)]])
    assert cost_picture([arm("a", [0.5], cost), arm("c", [0.1])]) is None


def test_main_components_by_hand():
    """The corners of a rectangle of 4 by 2 in three dimensions: variances 4 and 1."""
    corners = np.array([[0, 0], [4, 0], [0, 2], [4, 2]], float)
    vectors = corners @ np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]]) + 5.0
    found, shares = main_components(vectors)
    assert np.allclose(np.abs(found), [[2, 1]] * 4) and np.allclose(shares, [0.8, 0.2])
    # Distances are those of the rectangle.
    assert np.allclose(np.linalg.norm(found[0] - found[1:], axis=1), [4, 2, 20**0.5])
    assert (found.max(axis=0) >= -found.min(axis=0) - 1e-12).all()
    parts = points({"source": vectors[:1], "target": vectors[1:]})
    assert np.allclose(parts["points"]["source"] + parts["points"]["target"], found, atol=1e-6)


def test_texts_of_domains_are_the_first_ones_of_each_file(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.tsv").write_text("".join(f"{name}{row}\tpos\n" for row in range(9)))
    data = config_of("domain_transfer", data={"input_schema": "text:str:1,label:str:1", "first_sequence": "text"}).data
    files = ",".join(str(tmp_path / f"{name}.tsv") for name in "abc")
    assert read_texts(files, data, rows=5) == ["a0", "a1", "b0", "b1", "c0"]
    assert read_texts(str(tmp_path / "a.tsv"), data, rows=99) == [f"a{row}" for row in range(9)]


def test_points_are_of_the_vectors_of_the_encoder(tmp_path, tiny_model):
    from appzoo.jobs.vectors import text_vectors

    tables = {"source": ["a good film", "the film was bad"], "target": ["a good day"]}
    for name, texts in tables.items():
        (tmp_path / f"{name}.tsv").write_text("".join(f"{text}\tpos\n" for text in texts))
    data = {"input_schema": "text:str:1,label:str:1", "first_sequence": "text"}
    places = {name: str(tmp_path / f"{name}.tsv") for name in tables}
    job = {"models": {"before": str(tiny_model)}, "tables": places, "data": data, "zoo": None}
    found = computed_points(job)["before"]
    vectors = text_vectors(str(tiny_model), sum(tables.values(), []), "pool_output", RuntimeConfig())
    expected, shares = main_components(vectors)
    assert np.allclose(found["points"]["source"] + found["points"]["target"], expected, atol=1e-5)
    assert np.allclose(found["shares"], shares, atol=1e-5)


def test_the_picture_of_domains_has_the_points_of_each_side():
    figure = domains_picture(_POINTS)
    (panel,) = figure.axes
    assert [line.get_xydata().tolist() for line in panel.lines] == list(_POINTS["before"]["points"].values())
    assert panel.get_title() == "before" and panel.get_xlabel() == "50% of the variance"
    assert domains_picture({}) is None


# The command ---------------------------------------------------------------------------------------------------


def test_flags_of_an_experiment_and_of_its_trainings():
    given, rest = split_own(["--outputDir", "e", "--numEpochs", "3", "--arms=a,b", "--debug"])
    assert given == {"outputDir": "e", "arms": "a,b"} and rest == ["--numEpochs=3", "--debug"]
    assert seeds_of({}) == 3 and seeds_of({"seeds": "5"}) == 5
    for wrong, part in (
        (["--seeds=1", "--seeds=2"], "--seeds is given twice"),
        (["--checkpointDir=x"], "--outputDir=DIR"),
    ):
        with pytest.raises(ConfigError, match=part):
            split_own(wrong)
    for wrong in ("0", "-1", "1.5", "x"):
        with pytest.raises(ConfigError, match="a whole number from 1 on"):
            seeds_of({"seeds": wrong})


def test_help_and_what_is_missing(capsys):
    assert main(["experiment", "--help"]) == 0
    assert "--arms A,B,..." in capsys.readouterr().out
    assert main(["experiment", "--modelName=text_classify_cnn"]) == 2
    assert capsys.readouterr().err.startswith("error: experiment needs --outputDir")


def test_the_command_with_trainings_that_are_stood_in_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [
        "--config=appzoo/text_classify/configs/smoke_cnn.yaml",
        f"--outputDir={tmp_path}/e",
        "--seeds=2",
        "--seed=11",
    ]
    assert experiment([*words, "--dryRun"], PROCESSES) == 0
    dry = json.loads(capsys.readouterr().out)
    assert dry["arms"] == {"text_classify_cnn": "as configured"} and dry["seeds"] == [11, 12]
    assert not (tmp_path / "e").exists()
    assert experiment(words, PROCESSES) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    found = result["arms"]["text_classify_cnn"]
    first, second = (found["runs"][seed]["metrics"]["accuracy"] for seed in ("11", "12"))
    assert second == pytest.approx(first + 0.01)
    assert found["metrics"]["accuracy"] == {
        "mean": pytest.approx(first + 0.005),
        "spread": pytest.approx(0.01 / 2**0.5),
    }
    assert json.loads((tmp_path / "e" / "experiment.json").read_text())["arms"] == result["arms"]
    page = Path(result["report"]).read_text()
    for text in (f"{first + 0.005:.4f} ± 0.0071", "1,200", "2.5", "4.00", "text_classify_cnn-11"):
        assert text in page and text in captured.err
    assert "2 processors, CPU" in page and "<script src" not in page


# The page ------------------------------------------------------------------------------------------------------


def commands_of_the_page() -> list[list[str]]:
    """Returns the arguments of every command of docs/experiments.md."""
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def test_the_domains_of_the_page_with_trainings_that_are_stood_in_for(tmp_path, monkeypatch, capsys):
    try:
        resolve("minilm-l6-en", None)
    except ModelError:
        pytest.skip("MiniLM is not on this machine")
    (words,) = [words for words in commands_of_the_page() if "--arms" in words]
    monkeypatch.chdir(tmp_path)
    for name in ("examples", "appzoo"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert experiment([*words[1:], "--seeds=1"], PROCESSES) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["arms"]) == ["source_only", "target_only", "joint", "dann", "reweight"]
    job = json.loads((tmp_path / "runs" / "domains" / "domains.json").read_text())
    assert list(job["models"]) == ["before", *result["arms"]] and job["models"]["before"] == "minilm-l6-en"
    assert list(job["tables"]) == ["source", "target"] and job["tables"]["target"].startswith(
        "examples/domain_transfer/"
    )
    assert Path(result["report"]).read_text().count("data:image/png") == 2
    for name in result["arms"]:
        (run,) = (tmp_path / "runs" / "domains").glob(f"{name}-*/")
        assert RunFolder(run).config["transfer"]["algorithm"] == name


@pytest.mark.slow
def test_the_student_of_the_page_beside_its_teacher(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("examples", "appzoo"):
        (tmp_path / name).symlink_to(ROOT / name)
    for words in commands_of_the_page()[:2]:
        assert main(words) == 0
    taught, found = map(json.loads, capsys.readouterr().out.splitlines())
    arms = found["arms"]
    assert list(arms) == ["plain", "student", "teacher"] and list(found["tests"]) == ["student"]
    assert arms["teacher"]["metrics"]["accuracy"]["mean"] == pytest.approx(taught["metrics"]["accuracy"])
    assert arms["plain"]["cost"]["parameters"] == arms["student"]["cost"]["parameters"]
    assert 0 < arms["student"]["cost"]["parameters"] < arms["teacher"]["cost"]["parameters"]
    assert all(0 < arm["cost"]["ms_1"] and 0 < arm["cost"]["ms_32"] for arm in arms.values())
    assert all(arm["metrics"]["accuracy"]["mean"] > 0.5 for arm in arms.values())
    assert Path(found["report"]).read_text().count("data:image/png") == 1
