"""A job that names a model of the Hugging Face hub: downloaded at the first use, recorded, not asked for again."""

import json
from pathlib import Path

import pytest
from hub_stand_in import hub_stand_in
from training import without_export

from appzoo.cli.main import main

NAME = "someone/tiny"


@pytest.fixture
def stand_in(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with hub_stand_in() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        files = ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt")
        running.commit = running.add(NAME, {file: (tiny_model / file).read_bytes() for file in files}, "v1")
        yield running


def test_a_training_downloads_its_model_once_and_records_which(stand_in, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text("a good film\tyes\na bad film\tno\n" * 4)
    train = [
        "train",
        "--modelName=text_classify_bert",
        "--inputTable=t.tsv,t.tsv",
        "--inputSchema=text:str:1,label:str:1",
    ]
    train += ["--firstSequence=text", "--labelName=label", "--labelEnumerateValues=yes,no", "--sequenceLength=8"]
    train += ["--numEpochs=1", "--batchSize=8", f"--advancedParameters=pretrain_model_name_or_path=hf://{NAME}@v1"]
    assert main([*train, "--checkpointDir=run"]) == 4
    assert f"hf://{NAME}@v1 has not been downloaded" in capfd.readouterr().err and stand_in.asked == []
    with without_export():
        assert main([*train, "--checkpointDir=run", "--offline=false"]) == 0
    assert stand_in.paths("GET")
    record = json.loads(Path("run/run.json").read_text())["pretrained"]
    assert record == {"name": NAME, "origin": {"kind": "hub", "id": NAME, "revision": stand_in.commit}}
    told = f"`hf://{NAME}@v1`: `{NAME}` at commit `{stand_in.commit}`"
    assert told in Path("run/README.md").read_text() and stand_in.commit in Path("run/report.html").read_text()
    stand_in.asked.clear()
    assert main([*train, "--checkpointDir=dry", "--offline=false", "--dryRun"]) == 0
    vectors = ["--inputTable=t.tsv", "--inputSchema=text:str:1,label:str:1", "--firstSequence=text"]
    from appzoo.cli.features import main as features

    words = [f"--modelName=hf://{NAME}@v1", *vectors, "--outputSchema=pool_output", "--outputTable=v.tsv"]
    assert features(words) == 0, capfd.readouterr().err
    assert len(Path("v.tsv").read_text().splitlines()) == 8 and stand_in.asked == []
