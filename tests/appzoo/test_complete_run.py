"""A finished training that is started again says so; it goes on where something of it is gone or has changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from appzoo.image_classify.config import ImageClassifyConfig
from appzoo.jobs.train import train
from easytransfer.errors import ConfigError
from easytransfer.export import saved_model

PASSED = {"ok": True, "checks": [], "latency_ms": {}}


def write_table(path: Path, rows: int = 12, labels: str = "ab") -> None:
    random = np.random.default_rng(0)
    lines = []
    for row in range(rows):
        Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(path.parent / f"{row}.png")
        lines.append(f"{row}.png\t{labels[row % len(labels)]}\n")
    path.write_text("".join(lines))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a table and a finished run of it."""
    folder = tmp_path_factory.mktemp("complete")
    write_table(folder / "table.tsv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "validate", lambda *_, **__: PASSED)
        patch.chdir(folder)
        start()
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it, in which the tests are, and the checks of exports pass at once."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.setattr(saved_model, "validate", lambda *_, **__: PASSED)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy" / "run"


def start(**runtime) -> dict:
    values = {
        "data": {"train_table": "table.tsv", "eval_table": "table.tsv", "label_enumerate_values": "a,b",
                 "input_schema": "image:image:1,label:str:1"},
        "model": {"network": "mlp4x1_digits", "image_size": 8, "channels": 1},
        "augment": {"crop_padding": 0, "horizontal_flip": False},
        "train": {"num_epochs": 2, "batch_size": 4, "eval_batch_size": 4, **runtime.pop("train", {})},
        "export": runtime.pop("export", {}), "runtime": runtime,
    }  # fmt: skip
    return train(ImageClassifyConfig(model_name="image_classify", checkpoint_dir="run", **values))


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_complete_run_is_left_as_it_is(run, capsys):
    before = state(run)
    result = start()
    assert state(run) == before
    text = capsys.readouterr().err
    assert "the run in run is complete: nothing to train; --overwrite trains it anew" in text
    assert "best checkpoint" in text and "predict a table" in text
    assert Path(result["export"]) == Path("run/export/image_classify/1") and result["step"] > 0
    assert Path(result["run"]) == Path("run") and "accuracy" in result["metrics"]
    assert result["data"]["train"]["accepted"] == 12
    assert start(resume="must")["export"] == result["export"] and state(run) == before


def test_a_deleted_export_is_made_again(run):
    shutil.rmtree(run / "export")
    result = start()
    assert (Path(result["export"]) / "saved_model.pb").is_file() and (run / "DONE").is_file()
    versions = [path.name for path in (run / "export/image_classify").iterdir()]
    assert versions == ["1"]
    assert start()["export"] == result["export"]


def test_a_further_version_beside_it_is_told_and_not_added(run):
    shutil.copytree(run / "export/image_classify/1", run / "export/image_classify/2")
    shutil.copytree(run / "export/image_classify", run / "export/image_classify-int8")
    assert Path(start()["export"]) == Path("run/export/image_classify/2")


def test_what_starts_a_run_anew_or_goes_on_is_no_complete_run(run, capsys):
    with pytest.raises(ConfigError, match="holds a run already"):
        start(resume="never")
    with pytest.raises(ConfigError, match="holds a run with another configuration"):
        start(train={"batch_size": 3})
    longer = start(train={"num_epochs": 3})
    assert "is complete" not in capsys.readouterr().err
    assert longer["export"].endswith("2"), "the longer training is exported"
    start(train={"num_epochs": 3}, export={"max_batch_size": 2})
    start(train={"num_epochs": 3}, overwrite=True)
    assert "is complete" not in capsys.readouterr().err


def test_a_changed_table_is_no_complete_run(run, capsys):
    write_table(run.parent / "table.tsv", labels="ba")
    try:
        start()
    except ConfigError as error:
        assert "table" in str(error)
    assert "is complete" not in capsys.readouterr().err
