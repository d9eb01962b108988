"""The original's JSON configuration and stored run configurations, ours and the original's."""

from __future__ import annotations

import json

import pytest

from easytransfer.config.draft import Draft
from easytransfer.config.job import JobConfig
from easytransfer.config.original import from_original_json, is_original
from easytransfer.config.stored import find_run_config, inherited, load_run_config
from easytransfer.errors import ModelError

# Written after the form of the original's published classification configuration.
ORIGINAL = {
    "preprocess_config": {
        "input_schema": "text:str:1,domain:str:1,label:str:1",
        "first_sequence": "text",
        "second_sequence": None,
        "sequence_length": 64,
        "label_name": "label",
        "label_enumerate_values": "POS,NEG",
        "output_schema": "text,predictions",
    },
    "model_config": {"model_name": "text_classify_bert", "pretrain_model_name_or_path": "base", "num_labels": 2},
    "train_config": {
        "train_input_fp": "train.tsv",
        "train_batch_size": 16,
        "save_steps": None,
        "num_epochs": 1.5,
        "model_dir": "run",
        "throttle_secs": 10,
        "learning_rate": 1e-5,
        "optimizer_config": {"optimizer": "adam", "learning_rate": 1e-4, "gradient_clip": "false"},
        "distribution_config": {"distribution_strategy": "MirroredStrategy", "num_splits": 1},
    },
    "evaluate_config": {"eval_input_fp": "dev.tsv", "eval_batch_size": 8, "eval_checkpoint_path": "run/model.ckpt-9"},
    "predict_config": {
        "predict_checkpoint_path": "run/model.ckpt-10",
        "predict_input_fp": "test.tsv",
        "predict_batch_size": 4,
        "predict_output_fp": "out.tsv",
    },
}


def build(values):
    values = {**values}
    values.pop("model", None)
    draft = Draft()
    draft.update(values, "original")
    return draft.build(JobConfig)


def test_training_part():
    warnings = []
    values = from_original_json(ORIGINAL, "train", warnings.append)
    assert values["model"] == {"pretrain_model_name_or_path": "base", "num_labels": 2}
    config = build(values)
    assert (config.model_name, config.checkpoint_dir) == ("text_classify_bert", "run")
    assert (config.data.train_table, config.data.eval_table) == ("train.tsv", "dev.tsv")
    assert (config.data.sequence_length, config.data.second_sequence) == (64, None)
    assert (config.train.batch_size, config.train.eval_batch_size, config.train.num_epochs) == (16, 8, 1.5)
    assert config.train.learning_rate == 1e-4 and config.train.gradient_clip is False
    assert config.train.save_checkpoint_steps is None
    assert config.checkpoint_path is None
    # The stray key warns; keys of other modes and settled ones do not.
    assert len(warnings) == 1 and "train_config.learning_rate" in warnings[0]


@pytest.mark.parametrize(
    ("mode", "table", "checkpoint", "batch"),
    [("evaluate", "dev.tsv", "run/model.ckpt-9", 8), ("predict", "test.tsv", "run/model.ckpt-10", 4)],
)
def test_other_modes_read_their_own_section(mode, table, checkpoint, batch):
    config = build(from_original_json(ORIGINAL, mode, lambda text: None))
    assert (config.data.input_table, config.checkpoint_path, config.train.batch_size) == (table, checkpoint, batch)
    assert config.data.train_table is None
    assert config.data.output_table == ("out.tsv" if mode == "predict" else None)


def test_default_learning_rate_is_the_one_of_the_json_form():
    values = from_original_json({"train_config": {"train_input_fp": "a"}})
    assert values["train"]["learning_rate"] == 0.001


def test_what_counts_as_original():
    assert is_original(ORIGINAL) and is_original({"_config_json": {}})
    assert not is_original({"train": {}}) and not is_original({"schema_version": 2, "train_config": {}})


def run_folder(path, config):
    path.mkdir(parents=True)
    (path / "train_config.json").write_text(json.dumps(config))
    return path


def test_stored_configuration_is_found_from_every_kind_of_path(tmp_path):
    config = {"model_name": "text_classify_bert", "data": {"first_sequence": "content"}}
    run = run_folder(tmp_path / "run", config)
    (run / "model.ckpt-12").mkdir()
    (run / "model.ckpt-7.index").write_text("")
    (run / "checkpoint.json").write_text("{}")
    version = tmp_path / "export" / "name" / "2"
    for number in ("1", "2"):
        (tmp_path / "export" / "name" / number / "assets.extra").mkdir(parents=True)
    (version / "assets.extra" / "export.json").write_text(json.dumps({"config": config}))
    for path in (
        run,
        run / "model.ckpt-12",
        run / "model.ckpt-7",
        run / "model.ckpt-best",
        version,
        version.parent,
        version.parents[1],
    ):
        assert load_run_config(path) == config, path
    assert find_run_config(str(run) + "/") == run / "train_config.json"


def test_newest_version_wins_by_number(tmp_path):
    for number in ("9", "10"):
        folder = tmp_path / number / "assets.extra"
        folder.mkdir(parents=True)
        (folder / "export.json").write_text(json.dumps({"config": {"model_name": number}}))
    assert load_run_config(tmp_path) == {"model_name": "10"}


def test_missing_and_damaged(tmp_path):
    run = run_folder(tmp_path / "run", {})
    for step in (9, 10):
        (run / f"model.ckpt-{step}").mkdir()
    with pytest.raises(ModelError, match=r"model.ckpt-8 does not exist.*model.ckpt-9, .*model.ckpt-10") as error:
        load_run_config(run / "model.ckpt-8")
    assert error.value.exit_code == 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no stored configuration"):
        load_run_config(tmp_path / "empty")
    (run / "train_config.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_run_config(run)
    (run / "train_config.json").write_text("[]")
    with pytest.raises(ModelError, match="damaged"):
        load_run_config(run)


def test_original_run_folder_is_understood(tmp_path):
    run = run_folder(tmp_path / "run", {"_config_json": ORIGINAL, "first_sequence": "text", "zzz": 1})
    values = load_run_config(run)
    assert values["model_name"] == "text_classify_bert" and values["data"]["label_enumerate_values"] == "POS,NEG"


def test_a_later_job_does_not_inherit_what_described_the_training_job():
    config = JobConfig(model_name="text_classify_bert", checkpoint_dir="run")
    config.runtime.overwrite = True
    config.data.bad_rows = "skip"
    config.data.train_table = "train.tsv"
    config.data.first_sequence = "content"
    config.train.batch_size = 7
    values = inherited(config.model_dump(mode="json"))
    assert values["model_name"] == "text_classify_bert" and values["data"]["first_sequence"] == "content"
    assert values["train"]["batch_size"] == 7
    assert not {"checkpoint_dir", "export", "distribution"} & set(values)
    assert not {"train_table", "bad_rows"} & set(values["data"]) and "overwrite" not in values["runtime"]
    assert config.runtime.overwrite is True
