"""The command itself: verbs, exit codes, what goes to stdout, and how soon it answers without TensorFlow."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from appzoo.cli import checks
from appzoo.cli import main as command
from appzoo.cli.text import USUAL, VERBS
from easytransfer.config.fields import settings_of
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, DataError, Interrupted, ModelError, ResourceError

# Processor time of a whole process that runs no job. The wall time is the same on an idle machine and longer where
# tests run side by side, which says nothing about the command.
SECONDS = 1.0
# Processor seconds of the loop in `second` where commands take 0.7 to 0.85.
YARDSTICK = 0.18


@pytest.fixture
def job_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.tsv").write_text("good\t1\nbad\t0\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "bert"}')
    return [
        "train",
        "--modelName=text_classify_bert",
        "--inputTable=t.tsv,t.tsv",
        "--inputSchema=content:str:1,label:str:1",
        "--firstSequence=content",
        "--labelName=label",
        "--labelEnumerateValues=0,1",
        "--checkpointDir=run",
        "--advancedParameters=pretrain_model_name_or_path=./base",
    ]


def job_that(monkeypatch, function):
    """Replaces the jobs, so that no TensorFlow is needed here."""
    monkeypatch.setattr(command, "job_function", lambda mode: lambda config: function(mode, config))


def test_result_is_one_json_line_on_stdout_and_the_rest_on_stderr(job_line, monkeypatch, capsys):
    def job(mode, config):
        print("library noise")
        return {"mode": mode, "batch": config.train.batch_size, "score": np.float32(0.5), "bad": float("nan")}

    job_that(monkeypatch, job)
    assert command.main([*job_line, "--batchSize=4", "--exportDirBase=x"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"mode": "train", "batch": 4, "score": 0.5, "bad": None}
    assert out.count("\n") == 1
    assert "library noise" in err and "--exportDirBase has no meaning in mode train" in err


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (ConfigError("wrong"), 2, "error: wrong"),
        (DataError("row"), 3, "error: row"),
        (ModelError("weights"), 4, "error: weights"),
        (ResourceError("disk"), 5, "error: disk"),
        (Interrupted("stopped"), 6, "error: stopped"),
        (KeyboardInterrupt(), 6, "type the same command again"),
        (MemoryError(), 5, "lower --batchSize"),
        (
            type("ResourceExhaustedError", (Exception,), {})("OOM when allocating\nmore"),
            5,
            "OOM when allocating; lower",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), 5, "cannot write run/x: No space left on device"),
    ],
)
def test_exit_codes(job_line, monkeypatch, capsys, error, code, part):
    def job(mode, config):
        raise error

    job_that(monkeypatch, job)
    assert command.main(job_line) == code
    out, err = capsys.readouterr()
    assert out == "" and part in err and "Traceback" not in err
    assert len(err.strip().split("\n")) == 1


def test_unexpected_error_leaves_a_report(job_line, monkeypatch, capsys, tmp_path):
    def job(mode, config):
        raise ZeroDivisionError("one over none")

    job_that(monkeypatch, job)
    assert command.main(job_line) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "error: unexpected ZeroDivisionError: one over none; report written to" in err
    (report,) = tmp_path.glob("easytransfer-error-*.txt")
    text = report.read_text()
    assert "ZeroDivisionError" in text and "--checkpointDir=run" in text and "tensorflow" in text


def test_debug_shows_the_traceback(job_line, capsys):
    assert command.main([*job_line, "--debug", "--labelName=x", "--batchSize=0"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_config_dump_needs_no_files(capsys, tmp_path):
    words = ["train", "--modelName=text_classify_bert", "--inputTable=a,b", "--configDump"]
    assert command.main(words) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["mode"] == "train" and values["data"]["train_table"] == "a" and values["schema_version"] == 2
    assert command.main([*words[:-1], f"--configDump={tmp_path}/c.json"]) == 0
    assert json.loads((tmp_path / "c.json").read_text()) == values
    assert capsys.readouterr().out == ""
    assert command.main(["config", "--check", f"{tmp_path}/c.json"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


def test_default_configuration_of_an_application(capsys, tmp_path):
    assert command.main(["config", "text_classify"]) == 0
    text = capsys.readouterr().out
    values = yaml.safe_load(text)
    assert values["model_name"] == "text_classify_bert" and values["train"]["learning_rate"] in (2e-5, "2e-05")
    (tmp_path / "c.yaml").write_text(text.replace("batch_size: 32", "batch_size: 0", 1))
    assert command.main(["config", "--check", f"{tmp_path}/c.yaml"]) == 2
    assert "train.batch_size" in capsys.readouterr().err


def test_apps_lists_every_application(capsys):
    from appzoo import discovery

    assert command.main(["apps"]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert [line.split()[0] for line in lines] == [
        name for application in discovery.applications().values() for name in application.model_names
    ]
    assert any("text_classify_bert" in line and "Classify" in line for line in lines)


def test_help_names_every_flag_and_key(capsys):
    from appzoo import discovery

    config_class = discovery.config_class("text_classify_bert")
    assert command.main(["--help", "--modelName=text_classify_bert"]) == 0
    whole = capsys.readouterr().out
    for item in settings_of(config_class):
        assert (f"--{item.flag} " if item.flag else f"    {item.name} ") in whole, item.path
    assert "required in train" in whole and all(verb in whole for verb in VERBS)
    assert command.main(["predict", "-h"]) == 0
    predict = capsys.readouterr().out
    assert "--outputTable" in predict and "--numEpochs" not in predict
    assert command.main(["zoo", "--help"]) == 0
    assert "make-tiny" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [verb for verb in USUAL if verb != "ez_bert_feat"])
def test_help_of_a_verb_opens_with_its_eight_usual_flags(verb, capsys):
    assert command.main([verb, "--help"]) == 0
    whole = capsys.readouterr().out
    first, *sections = whole.split("\n\n")
    flags = [line.split()[0] for line in sections[0].splitlines() if line.startswith("  --")]
    assert VERBS[verb] in first and sections[0].startswith("Usual flags\n") and len(flags) == len(set(flags)) == 8
    lines = [line for line in whole.splitlines() if line.startswith("  --")]
    assert [sum(line.split()[0] == flag for line in lines) for flag in flags] == [1] * 8, "each is told once"
    needed = [line.split()[0] for line in lines if line.endswith("; required")]
    assert set(needed) <= set(flags), "what cannot be left out is among them"


def test_zoo_commands(capsys, tmp_path):
    assert command.main(["zoo", "list", "--zoo", str(tmp_path)]) == 0
    table = capsys.readouterr().out.split("\n")
    assert table[0].split() == ["name", "family", "parameters", "MB", "for", "licence", "here"]
    (line,) = [line for line in table if line.startswith("google-bert-base-zh")]
    assert line.split()[:3] == ["google-bert-base-zh", "bert", "102.3M"] and "Apache-2.0" in line
    (line,) = [line for line in table if line.startswith("efficientnet-lite0")]
    assert "224" in line
    assert command.main(["zoo", "list", "--json", "--zoo", str(tmp_path)]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} >= {"google-bert-base-en", "minilm-l6-en"}
    assert command.main(["zoo", "show", "google-bert-base-zh", "--json", "--zoo", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["vocab"] == 21128
    assert command.main(["zoo", "show", "google-bert-base-zh", "--zoo", str(tmp_path)]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["parameters", "102,267,648"] in lines and ["here", "no"] in lines and ["licence", "Apache-2.0"] in lines
    assert command.main(["zoo", "show", "google-bert-base-z", "--zoo", str(tmp_path)]) == 4
    assert "google-bert-base-zh" in capsys.readouterr().err
    assert command.main(["zoo", "fetch", "google-bert-base-zh", "--zoo", str(tmp_path)]) == 4
    assert "--offline=false" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "predict"),
        (["trian"], "unknown verb; got 'trian'"),
        (["apps", "x"], "unknown argument; got 'x'"),
        (["zoo", "list", "--jsn"], "did you mean --json?"),
        (["zoo", "lst"], "invalid choice: 'lst'"),
        (["zoo", "fetch", "x", "--offline=maybe"], "not true or false"),
        (["config"], "text_classify"),
        (["config", "text_clasify"], "text_classify"),
        (["config", "--check", "no.yaml"], "cannot read configuration file no.yaml"),
        (["train", "stray"], "unexpected argument; got 'stray'"),
    ],
)
def test_usage_errors(words, part, capsys):
    assert command.main(words) == 2
    out, err = capsys.readouterr()
    assert part in err and out == ""


@pytest.mark.parametrize(("kind", "flat", "refused"), [("app_model", False, True), ("app_model", True, False)])
def test_a_model_is_not_exported_into_a_model(kind, flat, refused, tmp_path):
    """Told before the weights are read."""
    model = tmp_path / "exported" / "text_classify_bert"
    (model / "1").mkdir(parents=True)
    (model / "1" / "saved_model.pb").touch()
    settings = SimpleNamespace(export_dir_base=str(model), export_type=kind, flat=flat)
    if refused:
        with pytest.raises(ConfigError, match=f"use --exportDirBase={model.parent}, or --exportFlat"):
            checks.check_outputs("export", SimpleNamespace(export=settings))
    else:
        checks.check_outputs("export", SimpleNamespace(export=settings))


def test_an_export_needs_only_its_own_folder_to_be_writable(tmp_path, monkeypatch):
    """A volume mounted at the root, such as /models in the image."""
    base = tmp_path / "models"
    base.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == base)

    def check(folder: Path) -> None:
        settings = SimpleNamespace(export_dir_base=str(folder), export_type="app_model", flat=False)
        checks.check_outputs("export", SimpleNamespace(export=settings))

    check(base)
    check(base / "new")
    with pytest.raises(ResourceError, match=f"{tmp_path} is not a writable folder"):
        check(tmp_path / "other")


def test_an_export_is_checked_by_name(capsys, tmp_path):
    assert command.main(["export", "validate", str(tmp_path / "missing")]) == 4
    assert capsys.readouterr().err.startswith("error: no such export; got ")
    assert command.main(["export", "validate"]) == 2
    assert "error: easy_transfer_app export validate: the following arguments are required" in capsys.readouterr().err
    assert command.main(["export", "validate", "--help"]) == 0
    assert "usage: easy_transfer_app export validate" in capsys.readouterr().out


def test_version(capsys):
    import easytransfer

    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == easytransfer.__version__


def test_every_mode_has_a_job():
    from easytransfer.config.schema import MODES

    assert {verb for verb in VERBS if verb in MODES} == set(MODES)
    assert {letter for item in settings_of(JobConfig) for letter in item.modes} == set("TEPXS")


QUICK = {
    "help": ["--help"],
    "train help": ["train", "--help", "--modelName=text_classify_bert"],
    "apps": ["apps"],
    "config": ["config", "text_classify_bert"],
    "zoo list": ["zoo", "list"],
    "zoo show": ["zoo", "show", "minilm-l6-en"],
    "zoo help": ["zoo", "fetch", "--help"],
    "unknown flag": ["train", "--batchSzie=3"],
    "unknown key": ["train", "--modelName=text_classify_bert", "--advancedParameters=drop_rate=1"],
    "wrong type": ["train", "--modelName=text_classify_bert", "--batchSize=x"],
    "missing flags": ["train", "--modelName=text_classify_bert"],
    "missing checkpoint": ["predict", "--checkpointPath=/no/such/run", "--inputTable=x", "--outputTable=y"],
}


def seconds_of(words, tmp_path, part=""):
    """Runs the command in a fresh process that fails if TensorFlow gets imported; returns its processor time."""
    code = (
        "import sys\nfrom appzoo.cli.main import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'tensorflow', 'tf_keras', 'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(99 if heavy else code)"
    )
    done, seconds = timed([sys.executable, "-c", code, *words], tmp_path)
    assert done.returncode in (0, 2, 3, 4), done.stderr
    assert part in done.stderr
    return seconds


def timed(command, folder):
    """Runs a command; returns what became of it, and its processor time."""
    # As an installed program, it finds its modules compiled: by the first of several tries, if by none before.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def second(folder):
    """Returns what a second is here and now: a virtual machine computes half as fast at times as at others."""
    loop = "d = {}\nfor i in range(400_000):\n    d[str(i % 999)] = [i, (i,)]"
    return max(timed([sys.executable, "-c", loop], folder)[1] / YARDSTICK, 1.0)


@pytest.mark.parametrize("name", QUICK)
def test_answers_within_a_second_without_tensorflow(name, tmp_path):
    assert any(seconds_of(QUICK[name], tmp_path) < SECONDS * second(tmp_path) for _ in range(3))


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--inputTable=t.tsv,gone.tsv", "gone.tsv"),
        ("--firstSequence=contnt", "did you mean content?"),
        ("--distributionStrategy=ParameterServerStrategy", "use horovod"),
        ("--advancedParameters=pretrain_model_name_or_path=minlm-l6-en", "did you mean minilm-l6-en"),
    ],
)
def test_start_checks_answer_within_a_second_too(job_line, tmp_path, flag, part):
    words = [word for word in job_line if word.split("=")[0] != flag.split("=")[0]]
    assert any(seconds_of([*words, flag], tmp_path, part) < SECONDS * second(tmp_path) for _ in range(3))


def test_closed_stdout_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -c 'import sys; from appzoo.cli.main import main; sys.exit(main())' config text_classify "
        "| head -1; exit ${PIPESTATUS[0]}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr and done.returncode == 0
