"""Configuration models, drafts and files: what is accepted, where values come from, what messages say."""

from __future__ import annotations

import json
from typing import Literal

import pytest
import yaml

from easytransfer.config.draft import Draft
from easytransfer.config.fields import camel, settings_of, type_text
from easytransfer.config.files import commented_yaml, dump, load_file, parse_override, take_mode
from easytransfer.config.job import JobConfig, ModelConfig
from easytransfer.config.schema import ConfigModel, read_value, setting
from easytransfer.errors import ConfigError


class NetworkConfig(ModelConfig):
    """Filters."""

    num_filters: list[int] = setting([100], "Filters per size.")
    fix_embedding: bool = setting(False, "Keep embeddings.")
    lower_case: Literal["auto", "true", "false"] = setting("auto", "Casing.")


class AppConfig(JobConfig):
    """An application."""

    model: NetworkConfig = NetworkConfig()


def build(values, origin="job.yaml", config_class=AppConfig):
    draft = Draft()
    draft.update(values, origin)
    return draft.build(config_class)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("", str | None, None),
        ("none", int | None, None),
        ("NULL", float | None, None),
        ("none", str | None, "none"),
        ("1,2, 3", list[int], ["1", "2", "3"]),
        ("[1, 2]", list[int], [1, 2]),
        (["a", 1], str | None, "a,1"),
        (True, Literal["true", "false"], "true"),
        ("3", Literal[1, 3], 3),
        (" 1 ", Literal[1, 3] | None, 1),
        (3.0, Literal[1, 3], 3),
        ("2", Literal[1, 3], "2"),
        ("none", Literal[1, 3] | None, None),
        ("1", Literal["1", "2"], "1"),
        (True, Literal[1, 3], "true"),
        ("x", int, "x"),
    ],
)
def test_values_are_read_alike_from_text_and_yaml(value, annotation, expected):
    assert read_value(value, annotation) == expected


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("train.gradient_clip", "false", False),
        ("train.gradient_clip", "true", True),
        ("train.batch_size", "16", 16),
        ("train.learning_rate", "2e-5", 2e-5),
        ("train.save_checkpoint_steps", "none", None),
        ("data.label_enumerate_values", ["neg", "pos"], "neg,pos"),
        ("data.label_enumerate_values", [0, 1], "0,1"),
        ("data.delimiter", "\\t", "\t"),
        ("data.delimiter", ",", ","),
        ("data.second_sequence", "", None),
        ("model.num_filters", "3,4,5", [3, 4, 5]),
        ("model.lower_case", True, "true"),
        ("schema_version", "2", 2),
    ],
)
def test_text_and_yaml_values_get_their_meaning(path, given, expected):
    draft = Draft()
    draft.put(path, given, "test")
    value = draft.build(AppConfig)
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"train": {"learning_rte": 1}}, ["unknown key train.learning_rte in job.yaml", "train.learning_rate?"]),
        ({"data": {"batch_size": 1}}, ["unknown key data.batch_size", "did you mean train.batch_size?"]),
        ({"trian": {"batch_size": 1}}, ["unknown key trian in job.yaml", "did you mean train?"]),
        ({"train": {"batch_size": "many"}}, ["train.batch_size in job.yaml", "'many'", "accepted: int >= 1"]),
        ({"train": {"batch_size": 0}}, ["got 0", "int >= 1"]),
        ({"train": {"batch_size": True}}, ["true and false are not numbers", "got True"]),
        ({"train": {"optimizer_type": "sgdm"}}, ["adam|adamw|lamb|adagrad|adadelta|sgd"]),
        ({"train": {"gradient_clip": "maybe"}}, ["true|false"]),
        ({"train": 3}, ["train in job.yaml is a section of keys", "got 3"]),
        ({"data": {"delimiter": "ab"}}, ["data.delimiter", "one character"]),
        ({"data": {"label_enumerate_values": ["a,b", "c"]}}, ["without commas"]),
        ({"model": {"num_filters": "3,x"}}, ["model.num_filters", "list of int"]),
    ],
)
def test_messages_name_path_place_value_and_accepted_form(values, parts):
    with pytest.raises(ConfigError) as error:
        build(values)
    for part in parts:
        assert part in str(error.value)
    assert error.value.exit_code == 2


def test_later_values_win_and_name_their_place():
    draft = Draft()
    draft.update({"train": {"batch_size": 8, "num_epochs": 2}}, "job.yaml")
    draft.put("train.batch_size", "bad", "--batchSize")
    draft.fill({"train": {"batch_size": 4, "warmup_ratio": 0.2}}, "stored")
    assert draft.get("train.batch_size") == "bad"
    with pytest.raises(ConfigError, match="wrong value for --batchSize; got 'bad'"):
        draft.build(JobConfig)
    assert draft.take("train.batch_size") == "bad"
    config = draft.build(JobConfig)
    assert (config.train.batch_size, config.train.num_epochs, config.train.warmup_ratio) == (32, 2, 0.2)


def test_a_value_does_not_replace_a_section():
    draft = Draft()
    draft.update({"train": {"batch_size": 8}}, "job.yaml")
    with pytest.raises(ConfigError, match="train is a section"):
        draft.put("train", "3", "--set train")
    with pytest.raises(ConfigError, match="train.batch_size is a value"):
        draft.put("train.batch_size.x", "3", "--set train.batch_size.x")


def test_every_flag_and_key_names_one_field():
    for config_class in (JobConfig, AppConfig):
        flags, keys = {}, {}
        for item in settings_of(config_class):
            for name in item.names if item.flag else ():
                assert flags.setdefault(name, item) is item
            for name in item.keys:
                assert keys.setdefault(name, item) is item
            assert item.text.endswith(".") and set(item.modes) <= set("TEPXS") and set(item.required) <= set(item.modes)


def test_flag_names_are_the_camel_case_of_the_original():
    by_path = {item.path: item for item in settings_of(JobConfig)}
    assert camel("label_enumerate_values") == "labelEnumerateValues"
    assert by_path["distribution.worker_gpu"].names == ("workerGPU", "worker_gpu")
    assert by_path["distribution.worker_hosts"].flag == "worker_hosts"
    assert by_path["train.save_checkpoint_steps"].names == (
        "saveCheckpointSteps",
        "save_checkpoint_steps",
        "save_steps",
    )
    assert by_path["train.warmup_ratio"].flag is None and by_path["train.warmup_ratio"].keys == ("warmup_ratio",)
    assert by_path["train.num_accumulated_batches"].keys == ("num_accumulated_batches",)
    assert all(item.flag is None for item in settings_of(AppConfig) if item.section == "model")


def test_type_text():
    assert type_text(int | None) == "int"
    assert type_text(tuple[int, ...]) == "list of int"
    assert type_text(Literal["a", "b"]) == "a|b"


def test_load_yaml_and_json_with_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("EZ_TABLES", "/data")
    (tmp_path / "a.yaml").write_text("data:\n  train_table: ${EZ_TABLES}/train.tsv\ntrain: {learning_rate: 2e-5}\n")
    values = load_file(tmp_path / "a.yaml")
    assert values["data"]["train_table"] == "/data/train.tsv"
    assert build(values).train.learning_rate == 2e-5
    (tmp_path / "a.json").write_text('\ufeff{"train": {"gradient_clip": "false"}, "model": {"num_filters": [1, 2]}}')
    config = build(load_file(tmp_path / "a.json"))
    assert config.train.gradient_clip is False and config.model.num_filters == [1, 2]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data:\n  train_table: ${EZ_NOT_SET}/x\n", "environment variable EZ_NOT_SET is not set"),
        ("train:\n  batch_size: 1\n  batch_size: 2\n", "line 3: key 'batch_size' is given twice"),
        ("train: [1\n", "not valid YAML or JSON"),
        ("- 1\n", "must hold keys and values"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_unusable_files(tmp_path, text, part):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_file(tmp_path / "a.yaml")
    assert part in str(error.value) and "a.yaml" in str(error.value)


def test_missing_and_binary_files(tmp_path):
    (tmp_path / "job.yaml").write_text("")
    with pytest.raises(ConfigError, match="cannot read .*jbo.yaml.*job.yaml"):
        load_file(tmp_path / "jbo.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_file(tmp_path / "b.yaml")
    assert load_file(tmp_path / "job.yaml") == {}


def test_overrides():
    assert parse_override("train.batch_size=16") == ("train.batch_size", "16")
    assert parse_override("data.label_name=null") == ("data.label_name", None)
    assert parse_override("model.num_filters=[1, 2]") == ("model.num_filters", [1, 2])
    assert parse_override("data.input_schema=a:str:1,b:int:1") == ("data.input_schema", "a:str:1,b:int:1")
    assert parse_override('data.delimiter=","') == ("data.delimiter", ",")
    for wrong in ("train.batch_size", "=3", "train..x=1", "train.batch size=1"):
        with pytest.raises(ConfigError, match="dotted path"):
            parse_override(wrong)


def test_dump_loads_to_the_same_configuration(tmp_path):
    config = build({"train": {"num_epochs": 0.5}, "data": {"delimiter": ","}, "model": {"num_filters": [3, 4]}})
    (tmp_path / "dump.json").write_text(json.dumps(dump(config, "train")))
    values = load_file(tmp_path / "dump.json")
    assert take_mode(values, "dump.json") == "train"
    assert build(values) == config
    with pytest.raises(ConfigError, match="mode"):
        take_mode({"mode": "tarin"}, "x")


def test_default_yaml_is_complete_commented_and_valid():
    text = commented_yaml(AppConfig, {"model_name": "x_bert"})
    values = yaml.safe_load(text)
    assert values["model_name"] == "x_bert"
    assert build({**values, "model_name": None}) == AppConfig()
    for item in settings_of(AppConfig):
        words = " ".join(line.strip(" #") for line in text.split("\n") if line.strip().startswith("#"))
        assert item.text in words, item.path


def test_assignment_is_checked_too():
    config = ConfigModel.model_validate({})
    assert config.model_dump() == {}
    job = JobConfig()
    with pytest.raises(ValueError):
        job.train.batch_size = 0
