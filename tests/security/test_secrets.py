"""Tokens and passwords that pass through: they are in no log, no report and no file of a run."""

import json
import sys

import pytest

from appzoo.cli import main as cli
from easytransfer.errors import ConfigError
from easytransfer.run import log
from easytransfer.run.environment import environment_record
from easytransfer.run.secrets import is_secret, shown_arguments, without_secrets

SECRET = "hunter2"
COMMANDS = [
    ["easy_transfer_app", "serve", "--token", SECRET],
    ["easy_transfer_app", "serve", f"--authToken={SECRET}"],
    ["easy_transfer_app", "train", "--set", f"serving.token={SECRET}"],
    ["easy_transfer_app", "zoo", "fetch", f"--url=https://me:{SECRET}@host/m.zip"],
    ["easy_transfer_app", "zoo", "fetch", "--url", f"https://host/m.zip?X-Amz-Signature={SECRET}&a=b"],
    ["easy_transfer_app", "train", f'--advancedParameters=a=1 hub_password="{SECRET} x"'],
    ["easy_transfer_app", "train", "--set", f'hub={{"api_key": "{SECRET}"}}'],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[2].partition("=")[0])
def test_command_lines_are_kept_without_secrets(monkeypatch, command):
    monkeypatch.setattr(sys, "argv", command)
    kept = environment_record()["command"]
    assert SECRET not in json.dumps(kept) and kept[:2] == command[:2]


def test_other_arguments_are_kept_as_they_are():
    command = [
        "train",
        "--config",
        "a b.yaml",
        "--set",
        "train.batch_size=8",
        "--tokenizer=x",
        "--firstSequence",
        "text",
    ]
    assert shown_arguments(command) == command
    assert shown_arguments(["--url=https://host/a/b.zip"]) == ["--url=https://host/a/b.zip"]
    text = "column 'token': unknown label: a=b; https://host:8500/v1/models/m:predict"
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "name", ["token", "serving.token", "HF_TOKEN", "apiKey", "AWS_SECRET_ACCESS_KEY", "db_password"]
)
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["tokenizer", "tokens_per_s", "token_file", "key", "keep_checkpoint_max", "num_keys", ""]
)
def test_names_that_are_none(name):
    assert not is_secret(name)


def test_reports_of_unexpected_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def fail(arguments):
        raise RuntimeError(f"no answer from https://me:{SECRET}@host/x?sig={SECRET} with token={SECRET}")

    assert cli.guarded(fail, ["serve", "--token", SECRET]) == 1
    (report,) = tmp_path.glob("easytransfer-error-*.txt")
    assert SECRET not in report.read_text() and "no answer from https://host/x" in report.read_text()
    assert SECRET not in capsys.readouterr().err


def test_messages_of_expected_errors(capsys):
    def fail(arguments):
        raise ConfigError("unexpected argument", received=f"serving.token={SECRET}")

    assert cli.guarded(fail, []) == 2
    captured = capsys.readouterr()
    assert SECRET not in captured.err + captured.out and "unexpected argument" in captured.err


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines(capsys, form):
    log.setup_logging(form)
    log.warn(f"asking https://host/a?sig={SECRET} with token={SECRET}")
    shown = capsys.readouterr().err
    log.setup_logging()
    assert SECRET not in shown and "asking https://host/a" in shown


def test_tracebacks_that_were_asked_for(capsys):
    def fail(arguments):
        raise ConfigError(f"wrong token={SECRET}")

    assert cli.guarded(fail, ["--debug"]) == 2
    shown = capsys.readouterr().err
    assert SECRET not in shown and "Traceback" in shown


def test_the_environment_is_not_recorded(monkeypatch):
    monkeypatch.setenv("EZ_TEST_TOKEN", SECRET)
    assert SECRET not in json.dumps(environment_record())


def test_hiding_takes_no_longer_than_the_text_is_long():
    import time

    begin = time.monotonic()
    for unit in ("a", "token", "token=", "a.", "=", "a=", "://", "a://", "a://a@", '"', "?"):
        without_secrets(unit * 100_000)
    assert time.monotonic() - begin < 10
