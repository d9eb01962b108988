"""`~` stands for the home folder in every path, however it is given, and never becomes a folder's name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from appzoo import discovery
from appzoo.cli.main import main
from appzoo.cli.reader import JobReader, read_settings
from appzoo.feature_config import FeatureConfig
from easytransfer.compat.config import Config
from easytransfer.config.draft import Draft
from easytransfer.config.fields import settings_of
from easytransfer.config.flags import Given
from easytransfer.config.job import JobConfig
from easytransfer.config.paths import expand_home, expand_homes
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError
from easytransfer.image.decode import load_image
from easytransfer.serving.settings import ServingConfig

# Settings of what one source of regions reads, and that source.
_SOURCES = {"data.region_file": "records", "model.region_network": "grid"}
# Applications whose labels have no names refuse to be given them.
_REFUSED = {(f"{name}Config", "data.label_enumerate_values") for name in ("Referring", "Vqa")}
# A sentence or name with one of these words speaks of a file or folder ...
_PATH_WORD = re.compile(r"path|_dir\b|dir_|folder|\bfile\b|table\b|^teacher$|Program that", re.IGNORECASE)
# ... but these are column names, numbers and the like all the same.
_NO_PATHS = {
    "train.metric_for_best", "data.input_schema", "data.first_sequence", "distribution.remote_shell",
    "distribution.worker_hosts", "data.append_cols", "data.output_schema", "model.network", "data.split_name",
    "data.image_column", "data.slice_columns", "data.task",
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of its own, apart from the working directory."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "work")
    yield folder
    assert not [path for path in (tmp_path / "work").rglob("*") if "~" in path.name]


def config_classes():
    names = [
        f"{name}_{variant}".rstrip("_")
        for name, application in discovery.applications().items()
        for variant in application.variants
    ]
    return [JobConfig, FeatureConfig, ServingConfig, *(discovery.config_class(name) for name in names)]


def test_the_home_folder_is_written_out(home):
    assert expand_home("~") == str(home) and expand_home("~/a b") == f"{home}/a b"
    assert expand_home("a/~/b") == "a/~/b" and expand_home("~$open.tsv") == "~$open.tsv" and expand_home("") == ""
    assert expand_homes("~/a, ~/b,c~") == f"{home}/a,{home}/b,c~"
    with pytest.raises(ValueError, match="no home folder ~nobody-of-this-name; .* written ./~nobody-of-this-name"):
        expand_home("~nobody-of-this-name/a")


def test_every_setting_that_names_a_path_is_known_as_one(home):
    for config_class in config_classes():
        for setting in settings_of(config_class):
            if "text" not in setting.kind or setting.path in _NO_PATHS:
                continue
            if _PATH_WORD.search(f"{setting.name} {setting.text}") or setting.name.endswith("_table"):
                assert setting.path_form, f"{config_class.__name__}.{setting.path}: is it a path?"


def test_every_path_setting_is_expanded_in_every_way_of_giving_it(home):
    for config_class in config_classes():
        for setting in settings_of(config_class):
            if not setting.path_form or (config_class.__name__, setting.path) in _REFUSED:
                continue
            draft = Draft()
            draft.put(setting.path, "~/place", "job.yaml")
            if config_class is ServingConfig and setting.name.startswith("tls_"):
                draft.update({"tls_cert": "~/place", "tls_key": "~/place"}, "job.yaml")
            if setting.path in _SOURCES:
                draft.put("model.region_source", _SOURCES[setting.path], "job.yaml")
            value = draft.build(config_class)
            for name in setting.path.split("."):
                value = getattr(value, name)
            assert value == f"{home}/place", (config_class, setting.path)


def test_flags_files_and_advanced_parameters(home):
    (home / "job.yaml").write_text("checkpoint_dir: ~/run\ndata:\n  train_table: ~/a.tsv\n  eval_table: ~/b.tsv\n")
    common = ["--modelName=text_classify_bert", "--advancedParameters=pretrain_model_name_or_path=~/model"]
    for given in (
        ["--config=~/job.yaml"],
        ["--checkpointDir=~/run", "--inputTable=~/a.tsv,~/b.tsv"],
        ["--set", "checkpoint_dir=~/run", "--set", "data.train_table=~/a.tsv", "--set", "data.eval_table=~/b.tsv"],
    ):
        config = JobReader("train", [*given, *common], []).read().config
        assert config.checkpoint_dir == f"{home}/run" and config.model.pretrain_model_name_or_path == f"{home}/model"
        assert (config.data.train_table, config.data.eval_table) == (f"{home}/a.tsv", f"{home}/b.tsv")
    with pytest.raises(ConfigError, match="checkpointDir.*there is no home folder ~nobody-here"):
        JobReader("train", ["--checkpointDir=~nobody-here/run", *common], []).read()
    features = read_settings(FeatureConfig, [Given("modelName", "~/run"), Given("outputTable", "~/out/")], ())
    assert (features.model_name, features.data.output_table) == (f"{home}/run", f"{home}/out/")


def test_a_stored_run_is_found_below_the_home_folder(home):
    (home / "run").mkdir()
    (home / "run" / "train_config.json").write_text('{"schema_version": 2, "model_name": "text_classify_bert"}')
    config = JobReader("evaluate", ["--checkpointPath=~/run", "--inputTable=~/a.tsv"], []).read().config
    assert config.model_name == "text_classify_bert" and config.checkpoint_path == f"{home}/run"


def test_configurations_of_user_defined_applications(home):
    values = {
        "preprocess_config": {"input_schema": "text:str:1", "first_sequence": "text"},
        "train_config": {"model_dir": "~/run", "train_input_fp": "~/a.tsv"},
    }
    job = Config("train", values).job
    assert (job.checkpoint_dir, job.data.train_table) == (f"{home}/run", f"{home}/a.tsv")


def test_tables_file_lists_and_cells_of_images(home):
    (home / "a.tsv").write_text("one\n")
    (home / "files.list_csv").write_text("~/a.tsv\n")
    schema = parse_schema("text:str:1")
    for spec in ("~/a.tsv", "~/*.tsv", "~/files.list_csv", "~/a.tsv,~/a.tsv"):
        table = open_table(spec, schema=schema)
        assert [chunk.columns["text"][0] for chunk in table.chunks()][0] == "one"
    with pytest.raises(DataError, match="there is no home folder ~nobody-here"):
        open_table("~nobody-here/a.tsv", schema=schema)
    with open_writer("~/new/out.tsv", ["text"]) as writer:
        writer.write({"text": ["a"]})
    assert (home / "new" / "out.tsv").read_text() == "a\n"
    Image.fromarray(np.full((2, 2, 3), 7, np.uint8)).save(home / "a.png")
    assert load_image("~/a.png", "elsewhere", channels=3, max_pixels=100).tolist() == [[[7] * 3] * 2] * 2


def test_commands_write_below_the_home_folder(home, capfd):
    assert main(["zoo", "make-tiny", "~/tiny"]) == 0
    assert (home / "tiny" / "config.json").is_file()
    assert main(["train", "--modelName=text_classify_bert", "--configDump=~/dump.json"]) == 0
    assert Path(home / "dump.json").is_file()
    capfd.readouterr()
