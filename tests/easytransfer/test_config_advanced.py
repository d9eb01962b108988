"""The `--advancedParameters` grammar (specification 2.5) and the flag syntax."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easytransfer.config.advanced import parse_advanced, resolve_advanced
from easytransfer.config.flags import FlagTable, Given, flag_value, split_flags
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError

# The text of the original's first text-classification test, with its enclosing quotes, comment and line breaks.
ORIGINAL_TEXT = """'
                            pretrain_model_name_or_path=google-bert-base-zh # For BERT
                            log_step_count_steps=100
                            lr_decay=polynomial
                            warmup_ratio=0.1
                            gradient_clip=true
                            '
                    """


def test_original_text_is_read_completely():
    assert parse_advanced(ORIGINAL_TEXT) == {
        "pretrain_model_name_or_path": "google-bert-base-zh",
        "log_step_count_steps": "100",
        "lr_decay": "polynomial",
        "warmup_ratio": "0.1",
        "gradient_clip": "true",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment", {}),
        ("a=1", {"a": "1"}),
        ("num_filters=100,100,100 filter_sizes=3,4,5", {"num_filters": "100,100,100", "filter_sizes": "3,4,5"}),
        (" \\\n a=1 \\\n b=2\\\n", {"a": "1", "b": "2"}),
        ('path="/my dir/model #1" b=2', {"path": "/my dir/model #1", "b": "2"}),
        (r'a="say \"hi\" \\"', {"a": 'say "hi" \\'}),
        ("a=b#comment\nc=d", {"a": "b", "c": "d"}),
        ("a=", {"a": ""}),
        ("a=./x/y-z_1.2:3", {"a": "./x/y-z_1.2:3"}),
        ("a=中文@!$%&", {"a": "中文@!$%&"}),
        ('"a=1 b=2"', {"a": "1", "b": "2"}),
        ('{"a": 1, "b": true, "c": [1, 2]}', {"a": 1, "b": True, "c": [1, 2]}),
        ('\'{"a": "x y"}\'', {"a": "x y"}),
    ],
)
def test_forms(text, expected):
    assert parse_advanced(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a", "expected key=value"),
        ("a=1 stray b=2", "got 'stray b=2'"),
        ("a = 1", "expected key=value"),
        ("a=b c=d=e", "between double quotes"),
        ('a="open', "between double quotes"),
        ('a="x"y', "between double quotes"),
        ("a=1 a=2", "key a is given twice; got '1 and 2'"),
        ('{"a": 1, "a": 2}', "key a is given twice"),
        ('{"a": 1', "not valid JSON"),
        ("@no/such/file.json", "cannot read @no/such/file.json"),
    ],
)
def test_nothing_is_cut_off_or_ignored(text, part):
    with pytest.raises(ConfigError) as error:
        parse_advanced(text)
    assert part in str(error.value) and error.value.exit_code == 2


def test_file_form(tmp_path, monkeypatch):
    (tmp_path / "p.json").write_text('{"warmup_ratio": 0.2}')
    assert parse_advanced(f"@{tmp_path / 'p.json'}") == {"warmup_ratio": 0.2}
    (tmp_path / "p.txt").write_text("warmup_ratio=0.2 # as text\n")
    assert parse_advanced(f"@{tmp_path / 'p.txt'}") == {"warmup_ratio": "0.2"}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_advanced("@~/p.json") == {"warmup_ratio": 0.2}


@given(st.dictionaries(st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True), st.text(max_size=20), max_size=5))
def test_quoted_values_come_back_unchanged(values):
    quoted = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in values.items()}
    assert parse_advanced(" ".join(f'{key}="{value}"' for key, value in quoted.items())) == values
    assert parse_advanced(json.dumps(values)) == values


def test_keys_find_their_fields():
    found = resolve_advanced({"save_steps": "300", "max_grad_norm": "2", "enable_xla": "true"}, JobConfig, "train")
    assert {path: value for path, (_, _, value) in found.items()} == {
        "train.save_checkpoint_steps": "300",
        "train.clip_norm_value": "2",
        "runtime.enable_xla": "true",
    }


@pytest.mark.parametrize(
    ("values", "mode", "part"),
    [
        ({"warmup_ration": "0.1"}, "train", "unknown key warmup_ration; did you mean warmup_ratio"),
        ({"zzz": "1"}, "train", "unknown key zzz; see --help"),
        ({"batch_size": "1"}, "train", "batch_size is a flag of its own; write --batchSize=VALUE"),
        ({"max_grad_norm": "1", "clip_norm_value": "1"}, "train", "max_grad_norm and clip_norm_value set the same"),
        ({"warmup_ratio": "0.1"}, "predict", "does not apply to mode predict; accepted: train"),
    ],
)
def test_wrong_keys(values, mode, part):
    with pytest.raises(ConfigError) as error:
        resolve_advanced(values, JobConfig, mode)
    assert part in str(error.value)


def test_flag_syntax():
    assert split_flags(["--a=1", "--b", "2", "--c", "--d=x=y", "--e", "", "--f", "-1"]) == [
        Given("a", "1"),
        Given("b", "2"),
        Given("c", None),
        Given("d", "x=y"),
        Given("e", ""),
        Given("f", "-1"),
    ]
    for wrong in (["stray"], ["--a=1", "stray"], ["-mode", "train"]):
        with pytest.raises(ConfigError, match="unexpected argument"):
            split_flags(wrong)


def test_boolean_flags_may_stand_alone():
    table = FlagTable(JobConfig)
    overwrite, batch = table.find("overwrite"), table.find("batch_size")
    assert flag_value(Given("overwrite", None), overwrite) is True
    assert flag_value(Given("overwrite", "false"), overwrite) == "false"
    with pytest.raises(ConfigError, match="--batchSize needs a value"):
        flag_value(Given("batchSize", None), batch)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("batchsize", "did you mean --batchSize"),
        ("batch_sizes", "--batchSize"),
        ("learningrate", "--learningRate"),
        ("confg", "--config"),
        ("warmupRatio", "write --advancedParameters='warmup_ratio=VALUE' or --set train.warmup_ratio=VALUE"),
        ("warmup_ratio", "is a key of --advancedParameters"),
        ("early_stoping_patience", "did you mean --advancedParameters='early_stopping_patience=VALUE'?"),
        ("qqqqqq", "see --help"),
    ],
)
def test_unknown_flags_name_the_nearest(name, part):
    table = FlagTable(JobConfig, ("config", "set"))
    assert table.find(name) is None
    assert part in str(table.unknown(name))
