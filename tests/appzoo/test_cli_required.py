"""What `--help` calls required is what a job cannot do without, and a missing application is called by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from appzoo import discovery
from appzoo.cli import features
from appzoo.cli.checks import check_required
from appzoo.cli.main import main
from easytransfer.config.draft import Draft
from easytransfer.config.fields import MODE_LETTERS, settings_of
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError

CLASSES = {name: discovery.config_class(name) for name in ("text_classify_bert", "text_match_bert", "image_classify")}
MODES = [(mode, name) for mode in MODE_LETTERS for name in CLASSES]
# What stands for a setting that is required unless ...: the tables say it themselves.
IDS = "input_ids:int:8,input_mask:int:8,segment_ids:int:8,label_id:int:1"


def values_for(mode: str, config_class: type[JobConfig]) -> dict[str, str]:
    """Returns a value for everything that help calls required."""
    schema = {"data.input_schema": "text:str:1"}
    return {
        item.path: schema.get(item.path, "given")
        for item in settings_of(config_class)
        if MODE_LETTERS[mode] in item.required
    }


def built(config_class: type[JobConfig], values: dict[str, str]) -> JobConfig:
    draft = Draft()
    for path, value in values.items():
        draft.put(path, value, "--test")
    config = draft.build(config_class)
    return config.model_copy(update={"model_name": values.get("model_name")})


@pytest.mark.parametrize(("mode", "name"), MODES)
def test_what_help_calls_required_is_enough_and_needed(mode, name):
    config_class, values = CLASSES[name], values_for(mode, CLASSES[name])
    check_required(mode, built(config_class, values))
    for path in values:
        missing = {key: value for key, value in values.items() if key != path}
        if built(config_class, missing).model_dump() == built(config_class, values).model_dump():
            continue
        with pytest.raises(ConfigError, match=f"mode {mode} needs"):
            check_required(mode, built(config_class, missing))


def test_exceptions_are_stated_and_true(capsys):
    main(["train", "--help"])
    train = capsys.readouterr().out
    for line in (
        "--inputSchema                       text; required unless the tables name their columns",
        "--trainTable                        text; required unless --inputTable names it",
        "--firstSequence                     text; required unless tables hold token ids or pictures",
        "--labelName                         text; required unless called label, or tables hold token ids or pictures",
    ):
        assert line in train
    common = {"model_name": "text_classify_bert", "checkpoint_dir": "run"}
    tables = {"data.train_table": "a.csv", "data.eval_table": "b.csv"}
    columns = {"data.first_sequence": "text", "data.label_name": "label"}
    config_class = CLASSES["text_classify_bert"]
    check_required("train", built(config_class, common | tables | columns))
    check_required("train", built(config_class, common | tables | {"data.input_schema": IDS}))
    check_required("train", built(CLASSES["image_classify"], common | tables))


def test_help_of_vectors_shows_what_they_need(capsys):
    assert features.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0] for line in lines if line.startswith("  --") and "; required" in line}
    needed = {item.shown for item in settings_of(features.FeatureConfig) if item.path in features.REQUIRED}
    assert shown == needed == {"--inputTable", "--outputTable", "--firstSequence", "--modelName"}
    usual = lines[lines.index("Usual flags") + 1 : lines.index("", lines.index("Usual flags"))]
    flags = {line.split()[0] for line in usual if line.startswith("  --")}
    assert len(flags) == 8 and shown <= flags


@pytest.fixture
def without_name(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text("checkpoint_dir: run\nmodel: {pretrain_model_name_or_path: minilm-l6-en}\n")
    return path


@pytest.mark.parametrize("verb", ["train --config", "config --check"])
def test_a_missing_application_is_what_is_missing(verb, without_name, capsys):
    assert main([*verb.split(), str(without_name)]) == 2
    error = capsys.readouterr().err
    assert f"no application is named, and model.pretrain_model_name_or_path in {without_name} belongs to one" in error
    assert "--modelName" in error and "model_name in the file" in error and "unknown key" not in error


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--set", "distillation.teacher=x"], "no application is named, and --set distillation.teacher belongs to one"),
        (["--set", "distillation.teachr=x"], "unknown key"),
        (["--inputTable=a,b"], "mode train needs --modelName"),
    ],
)
def test_a_missing_application_on_the_command_line(words, part, capsys):
    assert main(["train", "--checkpointDir=x", *words]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("name", ["text_classify_bert", "image_classify"])
def test_a_table_that_is_not_there_is_told_before_columns_are_asked_for(name, capsys):
    assert main(["train", f"--modelName={name}", "--inputTable=nowhere.csv", "--checkpointDir=x"]) == 3
    assert capsys.readouterr().err.startswith("error: table file nowhere.csv does not exist")
