"""Configurations made to execute, to blow up or to crash: every one is a ConfigError within a moment."""

import json
import time

import pytest

from appzoo.cli.reader import JobReader
from easytransfer.config import files
from easytransfer.config.advanced import parse_advanced
from easytransfer.config.draft import Draft
from easytransfer.config.files import load_file, parse_override
from easytransfer.config.job import JobConfig
from easytransfer.data.schema import parse_schema
from easytransfer.errors import ConfigError

# Generous: each of these is refused in milliseconds; what they ask for would take hours or all memory.
SECONDS = 5

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(c)}: &{chr(c)} [{', '.join(['*' + chr(c - 1)] * 9)}]\n" for c in range(ord("b"), ord("b") + 9)
)
YAML = {
    "billion_laughs": (LAUGHS, "line 2: aliases are not read; got '\\*a'"),
    "quadratic_alias": (f"a: &a {'x' * 1000}\nb: [{', '.join(['*a'] * 1000)}]\n", "aliases"),
    "alias_of_itself": ("a: &a [*a]\n", "aliases"),
    "merge_of_alias": ("a: &a {b: 1}\nc:\n  <<: *a\n", "aliases"),
    "python_apply": ("a: !!python/object/apply:os.system ['touch ran']\n", "not valid YAML"),
    "python_new": ("a: !!python/object/new:os.system ['touch ran']\n", "not valid YAML"),
    "python_name": ("a: !!python/name:os.system\n", "not valid YAML"),
    "python_module": ("a: !!python/module:os\n", "not valid YAML"),
    "own_tag": ("a: !reboot now\n", "not valid YAML"),
    "deep_list": ("a: " + "[" * 20_000, "nested too deeply"),
    "deep_mapping": ("".join(f"{' ' * i}a:\n" for i in range(1200)), "nested too deeply"),
    "thirteenth_month": ("a: 2001-13-45\n", "month must be in"),
    "int_of_words": ("a: !!int ten\n", "not valid YAML"),
    "int_of_nothing": ("a: 0x_\n", "not valid YAML"),
    "bool_of_words": ("a: !!bool maybe\n", "not valid YAML"),
    "mapping_of_a_word": ("a: !!map word\n", "not valid YAML"),
    "digits_without_end": ("a: " + "9" * 5000 + "\n", "not valid YAML"),
    "list_as_key": ("? [a, b]\n: 1\n", "not valid YAML"),
    "control_character": ("a: \x00\n", "not valid YAML"),
    "surrogate": ('a: "\\ud800"\n', "surrogate"),
    "too_long": ("a: " + "x" * files.MOST_BYTES, "more than"),
}


def refused_at_once(parse, text):
    begin = time.monotonic()
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert time.monotonic() - begin < SECONDS
    assert len(str(error.value)) < 5000


@pytest.mark.parametrize(("text", "message"), YAML.values(), ids=YAML.keys())
def test_yaml(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(text)
    begin = time.monotonic()
    with pytest.raises(ConfigError, match=message) as error:
        load_file("job.yaml")
    assert time.monotonic() - begin < SECONDS
    assert "job.yaml" in str(error.value) and len(str(error.value)) < 5000
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize("name", ["billion_laughs", "alias_of_itself", "python_apply", "deep_list", "thirteenth_month"])
def test_yaml_of_one_setting(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    value = YAML[name][0].strip().partition(": ")[2] if name != "billion_laughs" else "[&a [x, x], *a, *a]"
    value = value if value[0] in "[{" else f"[{value}]"
    with pytest.raises(ConfigError, match="--set a( line 1)?: the value is not valid YAML|aliases"):
        parse_override(f"a={value}")
    assert list(tmp_path.iterdir()) == []


JSON = {
    "deep": '{"a": ' + "[" * 100_000,
    "digits_without_end": '{"a": ' + "9" * 5000 + "}",
    "surrogate": '{"a": "\\ud800"}',
    "nul_in_a_path": '{"a": 1',
}


@pytest.mark.parametrize("text", JSON.values(), ids=JSON.keys())
def test_json(tmp_path, text):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(ConfigError, match="job.json"):
        load_file(tmp_path / "job.json")
    with pytest.raises(ConfigError, match="--advancedParameters"):
        parse_advanced(text)


def test_files_that_are_none(tmp_path):
    for path in ("a\0b", str(tmp_path), "/dev/zero"):
        with pytest.raises(ConfigError):
            load_file(path)
        with pytest.raises(ConfigError):
            parse_advanced(f"@{path}")


LONG = 100_000


def _short(text):
    return ascii(text)[:12]


@pytest.mark.parametrize(
    "text",
    [
        "a" * LONG,
        "a=" * LONG,
        " " * LONG + "x",
        "# \n" * LONG + "x",
        "\\ " * LONG + "x",
        'a="' + "\\" * LONG,
        'a="' + 'b" ' * LONG,
        "a=" + "\\" * LONG + '"',
    ],
    ids=_short,
)
def test_advanced_parameters_take_no_longer_than_they_are_long(text):
    refused_at_once(parse_advanced, text)


@pytest.mark.parametrize(
    "text",
    ["a:int:1," * LONG, "a:int:" + "9" * 5000, "a" * LONG, ":" * LONG, ",".join(f"c{i}:x:1" for i in range(LONG))],
    ids=_short,
)
def test_schemas_take_no_longer_than_they_are_long(text):
    refused_at_once(parse_schema, text)


@pytest.mark.parametrize("name", ["hosts_script", "remote_shell"])
def test_files_cannot_name_programs(tmp_path, name):
    (tmp_path / "job.yaml").write_text(f"distribution:\n  {name}: touch ran\n")
    for words in ([f"--config={tmp_path / 'job.yaml'}"], [f"--advancedParameters={name}=touch"]):
        with pytest.raises(ConfigError, match=f"distribution.{name} in .*names a program"):
            JobReader("train", ["--modelName=text_classify_bert", *words], []).read()
    job = JobReader("train", ["--modelName=text_classify_bert", f"--set=distribution.{name}=x"], []).read()
    assert getattr(job.config.distribution, name) == "x"


def test_unknown_keys_do_not_reach_the_configuration(tmp_path):
    for key in ("__class__", "__init__", "model_fields", "train.__dict__", "model_config"):
        draft = Draft()
        draft.update(json.loads(json.dumps({key: "x"})), "job.yaml")
        with pytest.raises(ConfigError, match="unknown key"):
            draft.build(JobConfig)
