"""The encoder that applications start from: weights a pre-trained model lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.encoder import Encoder
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ModelError


@pytest.fixture
def without_pooler(tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "incomplete"))
    (weights,) = folder.glob("*.safetensors")
    save_file({name: value for name, value in load_file(weights).items() if "pooler" not in name}, weights)
    return folder


def encoder(model: Path, *words: str):
    name = ["--modelName=text_classify_bert", f"--set=model.pretrain_model_name_or_path={model}"]
    config = JobReader("train", [*name, "--sequenceLength=16", *words], []).read().config
    return Encoder(config, None).backbone(None, ONE_WORKER)


def test_the_remedies_of_missing_weights_work(without_pooler, tmp_path, capfd):
    with pytest.raises(ModelError) as error:
        encoder(without_pooler)
    assert "--advancedParameters='allow_missing=REGEX'" in str(error.value)
    assert f"zoo import {without_pooler} NEW_FOLDER --allowMissing=REGEX" in str(error.value)
    found = encoder(without_pooler, "--advancedParameters=allow_missing=pooler")
    assert found.load_report.allowed and all("pooler" in name for name in found.load_report.allowed)
    with pytest.raises(ModelError, match="weights missing"):
        encoder(without_pooler, "--advancedParameters=allow_missing=embeddings")
    target = tmp_path / "new"
    assert main(["zoo", "import", str(without_pooler), str(target), "--allowMissing=pooler"]) == 0
    capfd.readouterr()
    assert encoder(target).load_report.allowed == found.load_report.allowed
