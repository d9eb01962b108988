"""Every application on a text encoder takes one of another family: trained, exported, served like in memory."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from appzoo import jobs
from appzoo.cli.reader import JobReader
from easytransfer.errors import ConfigError
from modelzoo import commands
from modelzoo.backbone import Backbone

# Smoke configuration -> columns of its evaluation table to predict on, and epochs that bring the loss down.
APPLICATIONS = {
    "text_comprehension/configs/smoke": 2,
    "sequence_labeling/configs/smoke": 2,
    "text_classify/configs/smoke": 3,
    "text_match/configs/smoke": 2,
    "text_match/configs/smoke_bert_two_tower": 2,
    "text_comprehension/configs/smoke_bert_hae": 2,
}
# Family -> a file of its tokenizer.
FAMILIES = {
    "albert": "spiece.model",
    "roberta": "merges.txt",
    "xlm-roberta": "sentencepiece.bpe.model",
    "xlnet": "spiece.model",
}
# All of them are run in --all. That rows of every layout are the same inside the graph, `test_row_layouts.py` guards at
# every commit, and ids and places of every tokenizer its own tests.
# A token that stands for a whole row, the same in every row, learns slowly to look at the words: epochs and rate there.
# RoBERTa also gets words that are no rows of letters.
LONGER = {
    ("albert", "text_classify/configs/smoke"): (8, 5e-3),
    ("albert", "text_match/configs/smoke"): (16, 2e-3),
    ("roberta", "text_classify/configs/smoke"): (8, 4e-3),
    ("roberta", "text_match/configs/smoke"): (16, 4e-3),
    ("roberta", "text_match/configs/smoke_bert_two_tower"): (6, 4e-3),
    ("xlm-roberta", "text_classify/configs/smoke"): (24, 5e-3),
    ("xlm-roberta", "text_match/configs/smoke"): (16, 4e-3),
    ("xlnet", "text_classify/configs/smoke"): (8, 5e-3),
    ("xlnet", "text_match/configs/smoke"): (12, 5e-3),
}
CASES = [
    pytest.param(family, name, epochs, marks=pytest.mark.slow, id=f"{family}-{name.replace('/configs/', '_')}")
    for family in FAMILIES
    for name, epochs in APPLICATIONS.items()
]


def job(mode, *arguments):
    return JobReader(mode, list(map(str, arguments)), []).read().config


@pytest.fixture(scope="module")
def models(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        commands.make_tiny(folder / family, family)
    tables = [repository / "examples" / name / "train.tsv" for name in ("text_classify", "text_match")]
    words = {word for table in tables for word in re.findall(r"\w+", table.read_text(encoding="utf-8"))}
    commands.make_tiny(folder / "roberta-words", "roberta", vocab=sorted(words))
    return folder


@pytest.mark.parametrize(("family", "name", "epochs"), CASES)
def test_a_family_is_trained_exported_and_served(family, name, epochs, models, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    config = repository / "appzoo" / f"{name}.yaml"
    epochs, rate = LONGER.get((family, name), (epochs, 2e-3))
    model = "roberta-words" if family == "roberta" and (family, name) in LONGER else family
    settings = {
        "checkpoint_dir": tmp_path / "run",
        "model.pretrain_model_name_or_path": models / model,
        "model.dropout_rate": 0.0,
        "train.num_epochs": epochs,
        "train.learning_rate": rate,
    }
    trained = job("train", f"--config={config}", *(f"--set={key}={value}" for key, value in settings.items()))
    result = jobs.train(trained)
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [record["loss"] for record in records if record["event"] == "step"]
    quarter = max(len(losses) // 4, 1)
    assert np.mean(losses[-quarter:]) < 0.97 * np.mean(losses[:quarter])
    # A run is a model of its family, and its tokenizer lies beside it.
    assert (tmp_path / "run" / FAMILIES[family]).is_file()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == family

    # The export answers like the run, away from everything it was made from.
    exported = Path(shutil.copytree(result["export"], tmp_path / "elsewhere" / Path(result["export"]).name))
    rows = []
    for number, source in enumerate((tmp_path / "run", exported)):
        output = tmp_path / f"{number}.jsonl"
        words = (f"--checkpointPath={source}", f"--inputTable={trained.data.eval_table}", f"--outputTable={output}")
        answer = jobs.predict(job("predict", *words))
        assert answer["written"] == answer["read"] > 0
        rows.append([json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()])
    for ours, theirs in zip(*rows, strict=True):
        assert ours.keys() == theirs.keys()
        for column, value in ours.items():
            if isinstance(value, float):
                assert value == pytest.approx(theirs[column], abs=2e-5)
            else:
                assert value == theirs[column]
    for package in ("tensorflow_serving", "starlette", "httpx"):
        pytest.importorskip(package, reason="needs the extras serving and test")
    from served_answers import check_served

    check_served(exported)


@pytest.mark.parametrize("family", ["albert", "xlnet"])
def test_workers_that_split_layers_are_refused(family, models):
    assert type(Backbone.from_preset(models / family)).family.name == family
    with pytest.raises(ConfigError, match=f"networks of the family {family} cannot be split over workers"):
        Backbone.from_preset(models / family, tensor=object())
