"""What every application must do, checked for each folder that is found; a new application adds nothing here.

`configs/smoke.yaml` must hold a line `# Reaches: <metric> >= <number>` (or `<=`), and may hold lines
`# Needs: <setting> = the run of <configuration>`; its paths are relative to the repository.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import importlib
import importlib.util
import io
import json
import operator
import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from at_every_commit import variant_of
from safetensors.numpy import load_file
from training import without_export

from appzoo import discovery
from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from easytransfer.config.fields import settings_of
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, Interrupted

APPLICATIONS = discovery.applications()
# (application, variant): the first variant's smoke configuration is `smoke.yaml`, the others' `smoke_<variant>.yaml`.
VARIANTS = [(name, variant) for name, application in APPLICATIONS.items() for variant in application.variants]
CONFIGS = [
    (name, path)
    for name, application in APPLICATIONS.items()
    for path in sorted((Path(discovery.__file__).parent / name / "configs").glob("*.yaml"))
]
RESULT_COLUMNS = ["config", "seeds", "hardware", "time", "reported", "measured", "log"]
_BASH = re.compile(r"^```bash\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_GOAL = re.compile(r"^# Reaches: (\w+) (>=|<=) ([\d.]+)$", re.MULTILINE)
# What answers there is a search, no call of the network.
STEP_BY_STEP = {"text_generation"}
# Long enough to stop in the middle, short enough to run three times.
SHORT_STEPS, STOP_AFTER = 6, 3


def folder_of(name: str) -> Path:
    return Path(discovery.__file__).parent / name


def config_of(mode: str, *arguments: str) -> JobConfig:
    return JobReader(mode, list(arguments), []).read().config


def weights_of(run_dir: Path) -> dict[str, np.ndarray]:
    last = json.loads((run_dir / "checkpoint.json").read_text())["last"]
    return load_file(run_dir / last / "weights.safetensors")


def assert_equal_weights(a: Path, b: Path) -> None:
    first, second = weights_of(a), weights_of(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []


@pytest.fixture(autouse=True)
def in_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)


def is_first(name: str, variant: str) -> bool:
    return variant == next(iter(APPLICATIONS[name].variants))


def smoke_config(name: str, variant: str) -> Path:
    return folder_of(name) / "configs" / ("smoke.yaml" if is_first(name, variant) else f"smoke_{variant}.yaml")


# Without TensorFlow ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_compulsory_files(name, variant):
    needed = [*(folder_of(name) / file for file in ("app.py", "config.py", "README.md")), smoke_config(name, variant)]
    assert [file for file in needed if not file.is_file()] == []


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_variant_has_a_configuration_and_an_application(name):
    found = importlib.import_module(f"appzoo.{name}.app").VARIANTS
    assert found.keys() == APPLICATIONS[name].variants.keys()


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_what_follows_from_inputs_and_target_is_not_overridden(name, variant):
    from easytransfer.app.contract import App

    members = {member: getattr(value, "fget", value) for member, value in vars(App).items()}
    final = {member for member, value in members.items() if getattr(value, "__final__", False)}
    assert {"encode", "specs", "text_columns", "label_columns"} <= final
    classes = APPLICATIONS[name].app_class(variant).__mro__
    own = {member for each in classes[: classes.index(App)] for member in vars(each)}
    assert own & final == set()


@pytest.mark.parametrize(("name", "path"), CONFIGS, ids=lambda value: getattr(value, "stem", value))
def test_every_config_parses(name, path):
    config = config_of("train", f"--config={path}")
    assert config.model_name in APPLICATIONS[name].model_names
    assert type(config) is discovery.config_class(config.model_name)


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("key", ["model.no_such_key", "train.learning_rte", "no_such_section.key"])
def test_unknown_keys_are_refused(name, key):
    with pytest.raises(ConfigError, match=re.escape(key.split(".")[-1])):
        config_of("train", f"--config={folder_of(name)}/configs/smoke.yaml", f"--set={key}=1")


def ways(config: Path, path: str, value: int, folder: Path) -> list[tuple[str, ...]]:
    """Arguments that set a number in every way there is."""
    key, base = path.rpartition(".")[2], yaml.safe_load(config.read_text(encoding="utf-8"))
    found: list[tuple[str, ...]] = [
        (f"--config={config}", f"--set={path}={value}"),
        *((f"--config={config}", f"--advancedParameters={text}") for text in (f"{key}={value}", f'{key}="{value}"')),
        *((f"--config={config}", "--advancedParameters", json.dumps({key: given})) for given in (value, str(value))),
    ]
    for number, given in enumerate((value, str(value), float(value))):
        for suffix, write in (("yaml", yaml.safe_dump), ("json", json.dumps)):
            section, _, name = path.rpartition(".")
            whole = {**base, section: {**base.get(section, {}), name: given}}
            file = folder / f"{number}.{suffix}"
            file.write_text(write(whole), encoding="utf-8")
            found.append((f"--config={file}",))
    return found


NUMBERED = [
    (name, setting.path, setting.kind)
    for name, application in APPLICATIONS.items()
    for setting in settings_of(discovery.config_class(application.model_names[0]))
    if re.fullmatch(r"-?\d+(\|-?\d+)+", setting.kind)
]


@pytest.mark.parametrize(("name", "path", "kind"), NUMBERED)
def test_choices_that_are_numbers_are_taken_in_every_form(name, path, kind, tmp_path):
    config, choices = folder_of(name) / "configs" / "smoke.yaml", [int(choice) for choice in kind.split("|")]
    other = next(number for number in range(min(choices), 99) if number not in choices)
    for arguments in ways(config, path, choices[0], tmp_path):
        found = config_of("train", *arguments)
        for key in path.split("."):
            found = getattr(found, key)
        assert found == choices[0] and type(found) is int, arguments
    for arguments in ways(config, path, other, tmp_path):
        with pytest.raises(ConfigError, match=rf"{path.rpartition('.')[2]}.*accepted: {re.escape(kind)}"):
            config_of("train", *arguments)


def test_some_choices_are_numbers():
    assert ("image_classify", "model.channels", "1|3") in NUMBERED and len(NUMBERED) > 4


@pytest.mark.parametrize("name", APPLICATIONS)
def test_readme_has_its_results_table(name):
    lines = (folder_of(name) / "README.md").read_text(encoding="utf-8").lower().splitlines()
    headers = [line for line in lines if line.startswith("|") and all(word in line for word in RESULT_COLUMNS)]
    assert headers, f"no results table with the columns {RESULT_COLUMNS}"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_command_line_lists_it(name, capfd):
    assert main(["apps"]) == 0
    output = capfd.readouterr().out
    assert all(model_name in output for model_name in APPLICATIONS[name].model_names)


# One smoke run per application -------------------------------------------------------------------------------


# One variant of each application by default, the others with `-m slow`.
SMOKE_RUNS = [
    pytest.param(each, marks=() if variant_of(each[0]) == each[1] else pytest.mark.slow, id="_".join(each))
    for each in VARIANTS
]


@pytest.fixture(scope="module", params=SMOKE_RUNS)
def smoke(request, repository: Path, needed_runs, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The application trained with its smoke configuration."""
    from appzoo import jobs

    path = smoke_config(*request.param)
    goal = _GOAL.search(path.read_text(encoding="utf-8"))
    assert goal, f"{path} states no goal"
    run_dir = tmp_path_factory.mktemp("_".join(request.param)) / "run"
    needed = needed_runs(path)
    values = {"checkpoint_dir": run_dir, **needed}
    before = os.getcwd()
    os.chdir(repository)
    try:
        config = config_of("train", f"--config={path}", *(f"--set={key}={value}" for key, value in values.items()))
        result = jobs.train(config)
    finally:
        os.chdir(before)
    facts = {"path": path, "goal": goal.groups(), "run_dir": run_dir, "needed": needed}
    return SimpleNamespace(**facts, config=config, result=result)


def history(run_dir: Path, event: str) -> list[dict[str, Any]]:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["event"] == event]


def rows_of(path: Path) -> list[list[str]]:
    """The predictions in a file, as text."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert header
        return rows
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".jsonl":
        return [line.split("\t") for line in lines]
    values = [json.loads(line).values() for line in lines]
    return [[",".join(map(str, value)) if isinstance(value, list) else str(value) for value in row] for row in values]


def run_printed(line: str, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a command line of the program's own and returns the first line it prints; a server ends when it is ready."""
    program, *arguments = shlex.split(line)
    assert program == "easy_transfer_app"
    if arguments[0] == "serve":
        from easytransfer.serving import server

        def until_ready(config: Any, announce: Any, raw: Any) -> dict[str, Any]:
            return plain(config, lambda where: (announce(where), os.kill(os.getpid(), signal.SIGTERM)), raw)

        plain = server.serve
        patch.setattr(server, "serve", until_ready)
        arguments += ["--restPort=0", "--grpcPort=0"]  # another test may have the usual ones
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    gc.unfreeze()
    assert code == 0, f"{line}\n{err.getvalue()}"
    return json.loads(out.getvalue().splitlines()[0])


@pytest.fixture(scope="module")
def printed(smoke, repository: Path) -> SimpleNamespace:
    """The command lines that the smoke run prints, run as they stand: `lines` and `answers` by verb."""
    lines = _BASH.findall((smoke.run_dir / "README.md").read_text(encoding="utf-8"))
    by_verb = {shlex.split(line)[1]: line for line in lines}
    assert len(by_verb) == len(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        answers = {
            verb: run_printed(line, patch)
            for verb, line in by_verb.items()
            if verb != "serve" or importlib.util.find_spec("tensorflow_serving") is not None
        }
    return SimpleNamespace(lines=by_verb, answers=answers)


def test_smoke_run_learns_and_reaches_its_score(smoke):
    records = history(smoke.run_dir, "step")
    # Losses of earlier stages are others.
    losses = [record["loss"] for record in records if record.get("stage") == records[-1].get("stage")]
    assert len(losses) >= 4, "log more often in smoke.yaml: train.log_step_count_steps"
    quarter = max(len(losses) // 4, 1)
    assert np.mean(losses[-quarter:]) < np.mean(losses[:quarter])
    metric, sign, goal = smoke.goal
    best = json.loads((smoke.run_dir / "evaluation.json").read_text())["best"][metric]
    assert {">=": operator.ge, "<=": operator.le}[sign](best, float(goal)), f"{metric} is {best}"


def test_saved_model_evaluates_as_in_training(smoke, printed):
    in_training = json.loads((smoke.run_dir / "evaluation.json").read_text())["best"]
    assert printed.answers["evaluate"]["metrics"]
    for name, value in printed.answers["evaluate"]["metrics"].items():
        assert value == pytest.approx(in_training[name], abs=1e-5), name


def test_predicted_rows_have_the_declared_columns(printed):
    result, rows = printed.answers["predict"], rows_of(Path(printed.answers["predict"]["output"]))
    assert result["columns"] and len(rows) == result["written"] == result["read"] - result["rejected"]
    assert {len(row) for row in rows} == {len(result["columns"])}


def test_export_answers_like_the_model(smoke, printed, tmp_path):
    from appzoo import jobs

    # The export that training made, away from everything it was made from.
    exported = Path(shutil.copytree(smoke.result["export"], tmp_path / "elsewhere" / "1"))
    of_the_run = Path(printed.answers["predict"]["output"])
    flags = dict(word.split("=", 1) for word in shlex.split(printed.lines["predict"])[2:])
    flags |= {"--checkpointPath": exported, "--outputTable": tmp_path / of_the_run.name}
    jobs.predict(config_of("predict", *(f"{name}={value}" for name, value in flags.items())))
    expected, found = rows_of(of_the_run), rows_of(tmp_path / of_the_run.name)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            try:
                np.testing.assert_allclose(*(np.array(cell.split(","), float) for cell in (a, b)), atol=2e-5)
            except ValueError:
                assert a == b


def test_served_answers_equal_those_in_memory(smoke, tmp_path):
    for package in ("tensorflow_serving", "starlette", "httpx"):
        pytest.importorskip(package, reason="needs the extras serving and test")
    from served_answers import check_served

    exported = Path(smoke.result["export"])
    # Alone: another test may have exported the next version beside it, which would be served in its place.
    check_served(Path(shutil.copytree(exported, tmp_path / exported.parent.name / exported.name)))


def test_every_printed_command_runs_as_it_stands(smoke, printed):
    report = json.loads((smoke.run_dir / "report.json").read_text(encoding="utf-8"))
    assert list(printed.lines.values()) == list(report["commands"].values())
    assert list(printed.lines) == ["predict", "evaluate", "export", "serve"]
    predicted, exported = printed.answers["predict"], printed.answers["export"]
    assert (predicted["mode"], exported["mode"]) == ("predict", "export")
    assert predicted["written"] == predicted["read"] > 0
    first = Path(smoke.result["export"])
    assert Path(exported["export"]).parent == first.parent and exported["version"] > int(first.name)


def test_pages_are_linked_or_shown(smoke):
    pages = json.loads((smoke.run_dir / "report.json").read_text(encoding="utf-8"))["pages"]
    card, page = ((smoke.run_dir / name).read_text(encoding="utf-8") for name in ("README.md", "report.html"))
    for name in pages:
        assert (smoke.run_dir / name).is_file() and f"]({name})" in card
        title = Path(name).stem.replace("_", " ").capitalize()
        assert f'<a href="{name}">{title}</a>' in page or f'alt="{title}"' in page, name


@pytest.mark.slow
@pytest.mark.every_check
def test_compiled_export_answers_like_the_model(smoke, tmp_path):
    """An export is compared with the model in memory before it is published."""
    from appzoo import jobs

    words = [f"--checkpointPath={smoke.run_dir}", f"--exportDirBase={tmp_path}", "--exportVariants=xla"]
    if smoke.config.model_name in STEP_BY_STEP:
        with pytest.raises(ConfigError, match="answers step by step, which is not compiled"):
            jobs.export(config_of("export", *words))
        assert not list(tmp_path.iterdir())
        return
    exported = Path(jobs.export(config_of("export", *words, "--set=export.max_batch_size=4"))["export"])
    assert b"_XlaMustCompile" in (exported / "saved_model.pb").read_bytes()


# Short deterministic runs ------------------------------------------------------------------------------------


# Students that read the words of the teacher's vocabulary: they keep the encoder whose words the teacher has.
SAME_WORDS = {"distillation_text_labeling"}


def short_config(smoke: SimpleNamespace, run_dir: Path, tiny_model: Path, **data: Any) -> JobConfig:
    """The smoke configuration for a few steps, with the smallest encoder where it has one, and settings of `data`."""
    epochs = SHORT_STEPS * smoke.config.train.batch_size / smoke.result["data"]["train"]["accepted"]
    values = {
        "checkpoint_dir": run_dir,
        "runtime.deterministic": "true",
        "train.num_epochs": epochs,
        "train.log_step_count_steps": 1,
        **smoke.needed,
        **{f"data.{name}": value for name, value in data.items()},
    }
    takes_encoder = "pretrain_model_name_or_path" in type(smoke.config.model).model_fields
    if takes_encoder and not smoke.config.model.from_scratch and smoke.config.model_name not in SAME_WORDS:
        values["model.pretrain_model_name_or_path"] = tiny_model
    return config_of("train", f"--config={smoke.path}", *(f"--set={key}={value}" for key, value in values.items()))


def train_short(smoke: SimpleNamespace, run_dir: Path, tiny_model: Path, **data: Any) -> None:
    """Trains without the export at the end, which has a test of its own."""
    from appzoo import jobs

    with pytest.MonkeyPatch.context() as patch, without_export():
        patch.chdir(Path(__file__).resolve().parents[2])
        jobs.train(short_config(smoke, run_dir, tiny_model, **data))


@pytest.fixture(scope="module")
def unbroken(smoke, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    train_short(smoke, run_dir, tiny_model)
    return run_dir


@pytest.mark.slow  # the resumed run below shows it, too: its first half is a run of its own
def test_two_runs_with_one_seed_agree(smoke, unbroken, tiny_model, tmp_path):
    train_short(smoke, tmp_path / "again", tiny_model)
    assert_equal_weights(unbroken, tmp_path / "again")


def test_stopped_and_resumed_run_equals_an_unbroken_one(smoke, unbroken, tiny_model, tmp_path, monkeypatch):
    from easytransfer.run.report import RunReporter

    # Its tables are on disk, and those of the unbroken one in memory: every application can be streamed.
    streamed = {"table_memory_mb": 1e-6}
    plain_step = RunReporter.step

    def stopping_step(self, step, metrics):
        plain_step(self, step, metrics)
        if step == STOP_AFTER:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunReporter, "step", stopping_step)
    with pytest.raises(Interrupted):
        train_short(smoke, tmp_path / "run", tiny_model, **streamed)
    monkeypatch.setattr(RunReporter, "step", plain_step)
    assert json.loads((tmp_path / "run" / "checkpoint.json").read_text())["last"] == f"model.ckpt-{STOP_AFTER}"
    assert len(list((tmp_path / "run" / "cache").rglob("table.json"))) == 2, "both tables are on disk"
    train_short(smoke, tmp_path / "run", tiny_model, **streamed)
    assert_equal_weights(unbroken, tmp_path / "run")
    best, expected = (json.loads((run / "evaluation.json").read_text())["best"] for run in (tmp_path / "run", unbroken))
    assert best == expected


# Presets -----------------------------------------------------------------------------------------------------


PRESET_KEYS = {"name", "aliases", "type", "parameters", "licence", "origin", "sha256", "sha256_reason"}
# Of an image network sizes follow from its name.
SIZE_KEYS = {"cnn": {"network", "classes", "input"}}


def test_every_preset_has_its_facts_and_a_name_of_its_own(repository: Path):
    presets = [
        preset
        for path in sorted((repository / "modelzoo").glob("*/presets.json"))
        for preset in json.loads(path.read_text(encoding="utf-8"))["presets"]
    ]
    assert presets
    for preset in presets:
        sizes = SIZE_KEYS.get(preset["type"], {"layers", "hidden"})
        assert preset.keys() >= PRESET_KEYS | sizes, preset["name"]
        assert bool(preset["sha256"]) != bool(preset["sha256_reason"]), (
            f"{preset['name']}: checksums, or why there are none"
        )
    names = [name for preset in presets for name in (preset["name"], *preset["aliases"])]
    assert len(names) == len(set(names))
