"""The original's conversion command, and every pair of layouts through `--exportType`."""

import itertools
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from appzoo.cli.main import main
from modelzoo.bert.config import BertConfig
from modelzoo.bert.formats import read_folder
from modelzoo.importing import export_model

NAMES = {"google": "google", "hf": "hf", "ez": "ez_transfer"}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory, tiny_model):
    """The same model in all layouts, with a configuration key no program knows."""
    folder = tmp_path_factory.mktemp("layouts")
    source = folder / "source"
    export_model(tiny_model, source, "hf")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "pooler_fc_size": 768, "directionality": "bidi"}))
    for form in NAMES:
        export_model(source, folder / form, form)
    return folder


def run(capfd, *arguments, code=0):
    capfd.readouterr()
    found = main(["--mode", "export", *map(str, arguments)])
    captured = capfd.readouterr()
    assert found == code, captured.err
    return (json.loads(captured.out) if not code else captured.err.splitlines()[-1]), captured.err


def assert_same_model(a, b):
    first, second = read_folder(a), read_folder(b)
    assert first.values.keys() == second.values.keys() and len(first.values) > 30
    assert [name for name, value in first.values.items() if not np.array_equal(value, second.values[name])] == []
    assert (a / "vocab.txt").read_bytes() == (b / "vocab.txt").read_bytes()
    one, two = (BertConfig.from_folder(folder).to_dict("ez") for folder in (a, b))
    assert {key: one[key] for key in one if key != "architectures"} == {
        key: two[key] for key in two if key != "architectures"
    }
    assert two["pooler_fc_size"] == 768 and two["directionality"] == "bidi", "the original lost all but the sizes"


def test_conversion(capfd, layouts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, shown = run(
        capfd,
        *["--checkpointPath", layouts / "ez" / "model.ckpt", "--exportType", "convert_bert_to_google"],
        *["--exportDirBase", "ez_conversion/"],
    )
    files = {"bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "vocab.txt"}
    assert set(result["files"]) == files == {path.name for path in (tmp_path / "ez_conversion").iterdir()}
    line = next(line for line in shown.splitlines() if "layer_1/attention/self/query/kernel" in line)
    assert "bert_pre_trained_model/bert/encoder" in line and "[32, 32]" in line, "variable, source, shape"
    assert_same_model(layouts / "ez", tmp_path / "ez_conversion")


@pytest.mark.parametrize(("source", "target"), itertools.permutations(NAMES, 2))
def test_round_trips_are_bit_identical(capfd, layouts, tmp_path, source, target):
    forth = f"convert_{NAMES[source]}_bert_to_{NAMES[target]}"
    back = f"convert_bert_to_{NAMES[source]}"
    there = ["--checkpointPath", layouts / source, "--exportType", forth, "--exportDirBase", tmp_path / "there"]
    result, _ = run(capfd, *there)
    assert (result["from"], result["to"]) == (source, target)
    home = ["--checkpointPath", tmp_path / "there", "--exportType", back, "--exportDirBase", tmp_path / "back"]
    run(capfd, *home)
    assert_same_model(layouts / source, tmp_path / "there")
    assert_same_model(layouts / source, tmp_path / "back")


def test_original_conversion_lost_configuration_keys(capfd, layouts, tmp_path):
    run(
        capfd,
        *["--checkpointPath", layouts / "google", "--exportType", "convert_google_bert_to_ez_transfer"],
        *["--exportDirBase", tmp_path / "ez"],
    )
    google = json.loads((layouts / "google" / "bert_config.json").read_text())
    ours = json.loads((tmp_path / "ez" / "config.json").read_text())
    lost = [key for key in google if key not in ours and key != "gelu_form"]
    assert lost == [] and ours["model_type"] == "bert" and ours["attention_probs_dropout_prob"] == 0.1


@pytest.mark.parametrize(
    ("kind", "source", "code", "part"),
    [
        ("convert_bert_to_gogle", "ez", 2, "convert_bert_to_google"),
        ("convert_google_bert_to_hf", "ez", 4, "another form"),
        ("convert_bert_to_google", "nothing", 4, "nothing"),
    ],
)
def test_wrong_conversions_are_told(capfd, layouts, tmp_path, kind, source, code, part):
    flags = ["--checkpointPath", f"{layouts}/{source}", "--exportType", kind, "--exportDirBase", tmp_path / "x"]
    message, _ = run(capfd, *flags, code=code)
    assert part in message and not (tmp_path / "x").exists()


def test_nothing_is_replaced(capfd, layouts, tmp_path):
    """The original had only "Invalid operation" for a model of its zoo, and wrote over everything else."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("mine")
    flags = ["--checkpointPath", layouts / "ez", "--exportType", "convert_bert_to_google", "--exportDirBase"]
    assert "already exists" in run(capfd, *flags, tmp_path / "x", code=4)[0]
    zoo = tmp_path / "zoo" / "bert" / "google-bert-base-zh"
    shutil.copytree(layouts / "ez", zoo)
    flags[1] = "google-bert-base-zh"
    message, _ = run(capfd, *flags, zoo, "--overwrite", "--modelZooBasePath", tmp_path / "zoo", code=4)
    assert "ModelZoo's own copy of google-bert-base-zh" in message and (zoo / "model.ckpt.index").is_file()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["mine"]


def test_a_trained_encoder_is_converted(capfd, layouts, tmp_path):
    from appzoo import jobs
    from appzoo.cli.reader import JobReader
    from appzoo.jobs.trained import open_trained

    (tmp_path / "t.tsv").write_text("good\t1\nbad\t0\n" * 4)
    flags = [
        f"--inputTable={tmp_path}/t.tsv,{tmp_path}/t.tsv", "--inputSchema=text:str:1,label:str:1",
        "--firstSequence=text", "--labelName=label", "--labelEnumerateValues=0,1", "--modelName=text_classify_bert",
        f"--checkpointDir={tmp_path}/run", "--learningRate=1e-3", "--sequenceLength=8",
        f"--advancedParameters=pretrain_model_name_or_path={layouts / 'source'}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules[jobs.train.__module__]
        patch.setattr(module, "export_app", lambda app, folder, *rest, **options: SimpleNamespace(path=folder))
        jobs.train(JobReader("train", flags, []).read().config)
    run(
        capfd,
        *["--checkpointPath", tmp_path / "run", "--exportType", "convert_bert_to_hf"],
        *["--exportDirBase", tmp_path / "hf"],
    )
    export = ["--checkpointPath", str(tmp_path / "run"), "--exportDirBase", "x"]
    trained = open_trained(JobReader("export", export, []).read().config).app.model.backbone.export_weights()
    written = read_folder(tmp_path / "hf").values
    pretrained = read_folder(layouts / "source").values
    assert all(np.array_equal(value, written[name]) for name, value in trained.items())
    assert any(not np.array_equal(value, pretrained[name]) for name, value in trained.items())
    message, _ = run(
        capfd,
        *["--checkpointPath", tmp_path / "run", "--exportType", "convert_google_bert_to_hf"],
        *["--exportDirBase", tmp_path / "y"],
        code=4,
    )
    assert "convert_bert_to_google" in message
