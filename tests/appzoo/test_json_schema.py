"""`config --schema`: what editors are told about a file is what `config --check` says of it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from appzoo import discovery
from appzoo.cli.main import main
from easytransfer.config.files import commented_yaml, dump, load_file
from easytransfer.config.json_schema import json_schema

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {
    name: config_class
    for application in discovery.applications().values()
    for name, config_class in zip(application.model_names, application.variants.values(), strict=True)
}
FILES = [*ROOT.glob("appzoo/*/configs/*.yaml"), *ROOT.glob("examples/*/*.yaml")]


@functools.cache
def checker(name: str) -> jsonschema.Draft7Validator:
    schema = json_schema(CLASSES[name], name)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def faults(name: str, values: object) -> list[str]:
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in checker(name).iter_errors(values)]


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_fit(name):
    assert faults(name, yaml.safe_load(commented_yaml(CLASSES[name], {"model_name": name}))) == []
    assert faults(name, json.loads(json.dumps(dump(CLASSES[name](), "train")))) == []


def test_the_files_of_the_checkout_fit():
    wrong = {}
    for path in FILES:
        values = load_file(str(path))
        if found := faults(values["model_name"], values):
            wrong[path.name] = found
    assert len(FILES) > 60 and wrong == {}


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({"train": {"batch_size": 8}}, True),
        ({"train": {"batch_size": 0}}, False),
        ({"train": {"batch_size": "many"}}, False),
        ({"train": {"batch_size": 1.5}}, False),
        ({"train": {"batch_sise": 8}}, False),
        ({"train": {"learning_rate": True}}, False),
        ({"train": {"learning_rate": "2e-5"}}, True),
        ({"train": {"eval_every_steps": "none"}}, True),
        ({"train": {"num_epochs": "none"}}, False),
        ({"train": {"optimizer_type": "adamw"}}, True),
        ({"train": {"optimizer_type": "adamx"}}, False),
        ({"data": {"train_table": ["a.csv", "b.csv"], "label_name": 5}}, True),
        ({"data": {"train_table": {"a": 1}}}, False),
        ({"data": {"sequence_length": None}}, False),
        ({"model": {"lower_case": True}}, True),
        ({"model": {"lower_case": "maybe"}}, False),
        ({"export": {"variants": "float32,int8"}}, True),
        ({"export": {"variants": ["float32", "int4"]}}, False),
        ({"mode": "predict"}, True),
        ({"mode": "guess"}, False),
        ({"schema_version": 3}, False),
    ],
)
def test_it_says_what_the_check_says(values, good, tmp_path, capsys):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"model_name": "text_classify_bert", **values}))
    assert (main(["config", "--check", str(path)]) == 0) is good, capsys.readouterr().err
    assert (faults("text_classify_bert", values) == []) is good


def test_a_variable_may_stand_for_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZE", "16")
    path = tmp_path / "job.yaml"
    path.write_text("model_name: text_classify_bert\ntrain: {batch_size: '${SIZE}'}\n")
    assert main(["config", "--check", str(path)]) == 0
    assert faults("text_classify_bert", yaml.safe_load(path.read_text())) == []


def test_printed(capsys):
    assert main(["config", "text_classify_bert", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    size = schema["properties"]["train"]["properties"]["batch_size"]
    assert size["default"] == 32 and {"type": "integer", "minimum": 1} in size["anyOf"]
    assert size["description"].startswith("Rows") and schema["properties"]["model_name"]["default"] == schema["title"]
    assert main(["config", "image_classify", "--schema"]) == 0
    assert main(["config", "--schema"]) == 2
