"""Configuration and command line of user-defined applications."""

import json
import sys

import pytest

from easytransfer.compat.command_line import FLAGS, command_line_config
from easytransfer.compat.config import MODES, Config, ModeKeys
from easytransfer.config.original import from_original_json
from easytransfer.errors import ConfigError

JSON = {
    "preprocess_config": {
        "input_schema": "text:str:1,extra:float:1,label:str:1",
        "first_sequence": "text",
        "second_sequence": "",
        "sequence_length": 32,
        "label_name": "label",
        "label_enumerate_values": "no,yes",
        "append_feature_columns": "extra:float:1",
        "output_schema": "bert_finetune",
        "tokenizer_name_or_path": "tokens",
        "preprocess_input_fp": "raw.tsv",
        "preprocess_output_fp": "ids.tsv",
        "preprocess_batch_size": 5,
    },
    "model_config": {"pretrain_model_name_or_path": "tiny", "num_labels": 2, "dropout": 1e-1, "lists": [1, 2]},
    "train_config": {
        "train_input_fp": "train.tsv",
        "train_batch_size": 16,
        "model_dir": "run",
        "save_steps": None,
        "optimizer_config": {"learning_rate": 1e-4, "gradient_clip": "false"},
        "distribution_config": {"num_splits": 2},
    },
    "evaluate_config": {"eval_input_fp": "dev.tsv", "eval_batch_size": 8, "eval_checkpoint_path": "run/model.ckpt-3"},
    "predict_config": {
        "predict_checkpoint_path": "run",
        "predict_input_fp": "test.tsv",
        "predict_output_fp": "out.tsv",
        "predict_batch_size": 4,
    },
    "export_config": {"checkpoint_path": "run", "export_dir_base": "exports"},
}


@pytest.fixture
def arguments(monkeypatch, tmp_path):
    """Sets the flags of the running script; JSON is the configuration unless another one is given."""

    def given(*flags, config=JSON):
        path = tmp_path / "app.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        FLAGS.read(["--config", str(path), *flags])

    yield given
    FLAGS.__dict__.clear()
    FLAGS.__init__()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_paths_as_attributes(mode):
    config = Config(mode, JSON)
    assert config.mode == mode and config.num_labels == 2 and config.dropout == 0.1 and config.lists == [1, 2]
    # Everything a published application reads, whatever the mode.
    assert (config.train_input_fp, config.eval_input_fp, config.predict_input_fp) == (
        "train.tsv",
        "dev.tsv",
        "test.tsv",
    )
    assert (config.eval_ckpt_path, config.predict_checkpoint_path) == ("run/model.ckpt-3", "run")
    assert config.output_schema == "input_ids,input_mask,segment_ids,label_id", "the alias is resolved"
    assert config.append_feature_columns == "extra" and config.second_sequence is None
    tables = {
        "train": ("train.tsv", "dev.tsv", None, 16),
        "train_and_evaluate": ("train.tsv", "dev.tsv", None, 16),
        "evaluate": (None, None, "dev.tsv", 8),
        "predict": (None, None, "test.tsv", 4),
        "export": (None, None, None, 32),
        "preprocess": (None, None, "raw.tsv", 5),
    }[config.kind]
    data = config.job.data
    assert (data.train_table, data.eval_table, data.input_table, config.job.train.batch_size) == tables
    assert config.job.data.output_table == {"predict": "out.tsv", "preprocess": "ids.tsv"}.get(config.kind)
    if config.kind.startswith("train"):
        assert (config.learning_rate, config.gradient_clip, config.num_epochs) == (1e-4, False, 1.0)
        assert config.optimizer == "adam" and config.save_steps is None


def test_rows_are_text_by_mode_or_by_the_declared_column():
    encoded = {"preprocess_config": {"input_schema": "input_ids:int:8,label_id:int:1", "first_sequence": "text"}}
    assert Config("train", JSON).on_the_fly, "the text column is declared"
    assert not Config("train", encoded).on_the_fly, "it is left over from the configuration of preprocess"
    assert Config("train_on_the_fly", encoded).on_the_fly and Config("preprocess", encoded).on_the_fly


def test_original_false_in_quotes_is_false():
    """`"gradient_clip": "false"` meant true in the original."""
    for text, value in (("false", False), ("true", True)):
        values = {"train_config": {"optimizer_config": {"gradient_clip": text}}}
        assert Config("train", values).job.train.gradient_clip is value


def test_stray_keys_warn_with_their_path_and_the_nearest_key(capfd):
    strays = {
        "train_config": {"learning_rate": 1, "optimizer_config": {"learning_rte": 2}},
        "evaluate_config": {"zzz": 3},
        "notes": 4,
    }
    config = Config("train", strays)
    assert config.learning_rate == 0.001 and config.learning_rte == 2 and config.notes == 4
    log = capfd.readouterr().err
    for path in ("train_config.learning_rate", "train_config.optimizer_config.learning_rte", "evaluate_config.zzz"):
        assert f"key {path} of the original configuration has no meaning here" in log
    assert log.count("did you mean train_config.optimizer_config.learning_rate?") == 2


def test_unknown_keys_are_errors_with_a_schema_version():
    strays = {"schema_version": 2, "train_config": {"optimizer_config": {"learning_rte": 2}}}
    expected = (
        r"unknown key train_config.optimizer_config.learning_rte; "
        r"did you mean train_config.optimizer_config.learning_rate\?"
    )
    with pytest.raises(ConfigError, match=expected):
        Config("train", strays)
    with pytest.raises(ConfigError, match=r"unknown key train.learning_rte in the configuration; did you mean"):
        Config("train", {"schema_version": 2, "train": {"learning_rte": 2}})
    with pytest.raises(ConfigError, match="train_config is a section of keys"):
        Config("train", {"train_config": "a.tsv"})


def test_the_present_form_gives_the_same_attributes():
    values = {
        "schema_version": 2,
        "data": {"train_table": "train.tsv", "eval_table": "dev.tsv", "append_feature_columns": ["extra"]},
        "model": {"num_labels": 3},
        "train": {"batch_size": 16},
    }
    config = Config("train_and_evaluate", values)
    assert (config.train_input_fp, config.train_batch_size, config.num_labels) == ("train.tsv", 16, 3)
    assert config.append_columns == ("extra",)


def test_sections_the_platform_adds_are_known(capfd):
    added = {
        "runtime_config": {"seed": 5, "deterministic": "true"},
        "data_config": {"bad_rows": "skip", "delimiter": ","},
        "logging_config": {"log_format": "json"},
    }
    job = Config("train", {**JSON, **added}).job
    assert (job.runtime.seed, job.runtime.deterministic, job.runtime.log_format) == (5, True, "json")
    assert (job.data.bad_rows, job.data.delimiter) == ("skip", ",")
    assert capfd.readouterr().err == ""


def test_labels_given_with_their_ids():
    values = {"preprocess_config": {"label_enumerate_values": {"b": 1, "a": 0, "c": 2}}}
    assert Config("train", values).job.data.label_enumerate_values == "a,b,c"


def test_parameters_of_the_model_win_over_stray_keys_and_cannot_take_reserved_names():
    assert Config("train", {"extra": {"size": 1}, "model_config": {"size": 2}}).size == 2
    with pytest.raises(ConfigError, match="model_config.job is a name the application needs itself"):
        Config("train", {"model_config": {"job": 1}})


def test_unknown_mode_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean train_and_evaluate"):
        Config("train_and_evalute", JSON)


def test_modes_of_the_model_function_have_two_names():
    assert ModeKeys.PREDICT == "predict" and ModeKeys.PREDICT == "infer" and ModeKeys.TRAIN != "predict"
    assert {"predict": 1}[ModeKeys.PREDICT] == 1 and str(ModeKeys.EVAL) == "eval"


# The command line ----------------------------------------------------------------------------------------------


def test_tables_and_outputs_replace_those_of_the_mode(arguments):
    arguments("--mode=train_and_evaluate", "--tables", "a,b")
    config = command_line_config()
    assert (config.train_input_fp, config.eval_input_fp) == ("a", "b") and config.predict_input_fp == "test.tsv"
    arguments("--mode=predict_on_the_fly", "--tables=p", "--outputs=o")
    assert (command_line_config().predict_input_fp, command_line_config().predict_output_fp) == ("p", "o")
    arguments("--mode=preprocess", "--tables=p", "--outputs=o")
    config = command_line_config()
    assert (config.preprocess_input_fp, config.preprocess_output_fp) == ("p", "o")
    arguments("--mode=evaluate", "--tables=e")
    assert command_line_config().job.data.input_table == "e"


def test_tables_that_have_no_place(arguments):
    arguments("--mode=evaluate", "--tables=a,b")
    with pytest.raises(ConfigError, match="too many tables for mode evaluate; got 'a,b'; accepted: eval_input_fp"):
        command_line_config()
    arguments("--mode=train", "--outputs=a")
    with pytest.raises(ConfigError, match="--outputs has no meaning in mode train"):
        command_line_config()


def test_worker_flags_are_settings_and_scripts_can_set_flags(arguments):
    arguments("--mode", "train", "--workerCount", "2", "--workerGPU=3", "--worker_hosts", "a:1,b:1", "--task_index=1")
    config = command_line_config()
    assert (config.num_workers, config.num_gpus, config.task_index) == (2, 3, 1)
    assert config.job.distribution.worker_hosts == "a:1,b:1"
    FLAGS.mode = "predict"
    assert command_line_config().kind == "predict"
    with pytest.raises(AttributeError, match="no flag --zzz"):
        _ = FLAGS.zzz


def test_flags_come_from_the_running_script(monkeypatch, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(JSON))
    flags = type(FLAGS)()
    monkeypatch.setattr(sys, "argv", ["my_app.py", "--mode=export", f"--config={tmp_path}/a.json", "--mine=1"])
    flags.own("mine", kind=int)
    assert (flags.mode, flags.config, flags.tables, flags.mine) == ("export", f"{tmp_path}/a.json", None, 1)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--modde=train", "unknown flag --modde; .*did you mean --mode"),
        ("--my_own_flag=1", "unknown flag --my_own_flag"),
        ("--batchSzie=1", "did you mean --batchSize"),
        ("--eval_batch_size=2", "write --advancedParameters='eval_batch_size=VALUE' or --set train.eval_batch_size"),
        ("train", "unexpected argument; got 'train'"),
        ("--dryRun", "--dryRun has no meaning in an application of one's own"),
        ("--mode=train --mode=export", "--mode is given twice"),
        ("--tables=a --inputTable=b", "--inputTable is given twice"),
        ("--config", "--config needs a value"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flag, expected):
    with pytest.raises(ConfigError, match=expected):
        type(FLAGS)().read(flag.split())


def test_a_flag_of_the_script_is_declared(monkeypatch):
    flags = type(FLAGS)()
    flags.own("rate", 0.1, float)
    flags.read([])
    assert flags.rate == 0.1
    flags.read(["--rate", "0.5"])
    assert flags.rate == 0.5
    with pytest.raises(ConfigError, match="wrong value for --rate: .*; got 'x'"):
        flags.read(["--rate=x"])
    with pytest.raises(ConfigError, match="--batchSize is a flag of EasyTransfer"):
        flags.own("batchSize")
    absl = pytest.importorskip("absl.flags")
    values = absl.FlagValues()
    absl.DEFINE_string("its_own", None, "Of tf.app.flags.", flag_values=values)
    monkeypatch.setattr(absl, "FLAGS", values)
    flags.read(["--its_own=1"])


@pytest.mark.parametrize("native", [False, True])
def test_flags_of_the_command_line_change_the_configuration(arguments, native):
    """What messages of the core name as a remedy: --overwrite, --resume, --badRows, --header and the like."""
    present = {"data": {"train_table": "a", "input_schema": "x:str:1"}, "checkpoint_dir": "run"}
    flags = ["--mode=train", "--overwrite", "--resume=must", "--badRows=skip", "--maxBadRows=3", "--header=skip"]
    flags += ["--batchSize=7", "--set", "train.num_eval_steps=5", "--set=model.rate=0.5", "--checkpointDir=there"]
    arguments(*flags, "--advancedParameters", "eval_batch_size=9", **({"config": present} if native else {}))
    config = command_line_config()
    job = config.job
    assert (job.runtime.overwrite, job.runtime.resume, job.checkpoint_dir) == (True, "must", "there")
    assert (job.data.bad_rows, job.data.max_bad_rows, job.data.header) == ("skip", 3, "skip")
    assert (job.train.batch_size, job.train.eval_batch_size, job.train.num_eval_steps) == (7, 9, 5)
    assert (config.train_batch_size, config.model_dir, config.rate) == (7, "there", 0.5)


def test_a_wrong_flag_of_a_script_is_named(arguments, capfd):
    arguments("--mode=train", "--batchSize=0")
    with pytest.raises(ConfigError, match="wrong value for --batchSize; got 0; accepted: int >= 1"):
        command_line_config()
    arguments("--mode=export", "--badRows=skip", "--numEpochs=3")
    command_line_config()
    assert "--numEpochs has no meaning in mode export and is ignored" in capfd.readouterr().err


def test_help_lists_the_flags(capfd):
    flags = type(FLAGS)()
    flags.own("mine")
    with pytest.raises(SystemExit) as end:
        flags.read(["-h"])
    shown = capfd.readouterr().out
    assert end.value.code == 0
    assert all(f"  --{name}\n" in shown for name in ("config", "mode", "tables", "outputs", "overwrite", "mine"))
    assert "--dryRun" not in shown


def test_configuration_files_are_json_not_yaml_numbers(arguments, monkeypatch):
    """YAML reads 1e-1 as text, and has no tabs."""
    monkeypatch.setenv("WHERE", "there")
    text = '{\n\t"model_config": {"rate": 1e-1},\n\t"train_config": {"model_dir": "${WHERE}/run"}\n}'
    arguments("--mode=train", config=text)
    config = command_line_config()
    assert config.rate == 0.1 and config.model_dir == "there/run"
    arguments(config='{"model_config": {"rate": 1}, "model_config": {"rate": 2}}')
    with pytest.raises(ConfigError, match="'model_config' is given twice"):
        command_line_config()
    arguments(config="{")
    with pytest.raises(ConfigError, match="not valid YAML or JSON"):
        command_line_config()
    FLAGS.read([])
    with pytest.raises(ConfigError, match="--config is missing"):
        command_line_config()


def test_stored_original_run_is_not_strict():
    assert from_original_json({"_config_json": JSON}, "predict")["data"]["input_table"] == "test.tsv"
