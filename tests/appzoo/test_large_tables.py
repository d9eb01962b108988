"""Tables that do not fit into the allowed memory: the same weights, metrics and account of rows as in memory."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import without_export

from appzoo.cli.reader import JobReader
from appzoo.jobs.evaluate import evaluate
from appzoo.jobs.predict import predict
from appzoo.jobs.train import train
from easytransfer.config.job import JobConfig
from easytransfer.data.table_store import TableStore, _Writer

SETTINGS = {"network": "resnet8_cifar", "image_size": 16, "channels": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """60 JPEG files in two class folders, bright above or below, and a broken one."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(60):
        label = ("bottom", "top")[number % 2]
        pixels = random.integers(0, 90, (40, 30)).astype(np.uint8)
        half = slice(0, 20) if label == "top" else slice(20, 40)
        pixels[half] += 120
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / label / f"{number}.jpg")
    (folder / "top" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


def config(pictures: Path, run: Path, memory_mb: float, **data):
    from appzoo.image_classify.config import VARIANTS

    return VARIANTS[""].model_validate(
        {
            "model_name": "image_classify",
            "checkpoint_dir": str(run),
            "data": {
                "train_table": str(pictures),
                "eval_table": str(pictures),
                "bad_rows": "quarantine",
                "table_memory_mb": memory_mb,
                **data,
            },
            "model": SETTINGS,
            "train": {"num_epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "log_step_count_steps": 1},
            "runtime": {"deterministic": True},
        }
    )


def config_of(mode: str, *arguments: str) -> JobConfig:
    return JobReader(mode, list(arguments), []).read().config


def weights_hash(run: Path) -> str:
    best = sorted(run.glob("model.ckpt-*"))[-1]
    return hashlib.sha256((best / "weights.safetensors").read_bytes()).hexdigest()


def test_a_table_on_disk_trains_to_the_bits_of_the_table_in_memory(pictures, tmp_path, monkeypatch):
    written = []
    plain = _Writer.finish
    monkeypatch.setattr(_Writer, "finish", lambda self, facts: written.append(1) or plain(self, facts))
    results = {}
    for name, memory_mb in (("memory", 1024), ("disk", 0.001)):
        with without_export():
            results[name] = train(config(pictures, tmp_path / name, memory_mb))
        assert len(written) == (0 if name == "memory" else 2), "the training and the evaluation table went to disk"
    assert weights_hash(tmp_path / "memory") == weights_hash(tmp_path / "disk")
    assert results["memory"]["metrics"] == results["disk"]["metrics"]
    for part in ("train", "eval"):
        account = results["disk"]["data"][part]
        assert account == results["memory"]["data"][part]
        assert (account["read"], account["accepted"], account["rejected"]) == (61, 60, 1)
    bad = [(tmp_path / name / "bad_rows.train.tsv").read_text() for name in ("memory", "disk")]
    assert bad[0] == bad[1] and "broken.jpg" in bad[0]
    assert not (tmp_path / "disk" / "cache").exists(), "what a finished run needs no more is removed"
    share = json.loads((tmp_path / "disk" / "report.json").read_text())["input_share"]
    assert 0 <= share < 1 and f"| waiting for input | {share:.1%} |" in (tmp_path / "disk" / "README.md").read_text()
    evaluations = []
    for memory_mb in (1024, 0.001):
        chosen = config(pictures, tmp_path / "memory", memory_mb, input_table=str(pictures))
        chosen.checkpoint_path = str(tmp_path / "memory")
        evaluations.append(evaluate(chosen))
    assert evaluations[0] == evaluations[1] and evaluations[0]["rejected"] == 1


@pytest.mark.parametrize(
    ("path", "page"),
    # `test_contract.py` trains every application from tables on disk, at every commit the first of a folder.
    [
        ("text_comprehension/configs/smoke_bert_hae", "answers.html"),
        pytest.param("text_comprehension/configs/smoke", "answers.html", marks=pytest.mark.slow),
        pytest.param("sequence_labeling/configs/smoke", "entities.html", marks=pytest.mark.slow),
    ],
)
def test_texts_on_disk_give_the_bits_of_texts_in_memory(path, page, tiny_model, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    written, plain = [], _Writer.finish
    monkeypatch.setattr(_Writer, "finish", lambda self, facts: written.append(1) or plain(self, facts))
    results = {}
    for name, memory_mb in (("memory", 1024), ("disk", 1e-6)):
        run = tmp_path / name
        job = config_of("train", f"--config=appzoo/{path}.yaml")
        table = job.data.eval_table
        values = {
            **{"checkpoint_dir": run, "data.train_table": table, "data.table_memory_mb": memory_mb},
            **{"model.pretrain_model_name_or_path": tiny_model, "runtime.deterministic": "true", "train.num_epochs": 1},
        }
        sets = [f"--set={key}={value}" for key, value in values.items()]
        with without_export():
            trained = train(config_of("train", f"--config=appzoo/{path}.yaml", *sets))
        memory = f"--set=data.table_memory_mb={memory_mb}"
        evaluated = evaluate(config_of("evaluate", f"--checkpointPath={run}", f"--inputTable={table}", memory))
        output = tmp_path / f"{name}.jsonl"
        predict(config_of("predict", f"--checkpointPath={run}", f"--inputTable={table}", f"--outputTable={output}"))
        facts = {**evaluated, "checkpoint": None}
        pages = (run / page).read_text(), output.read_text()
        results[name] = (weights_hash(run), trained["metrics"], trained["data"], facts, pages)
        assert len(written) == (0 if name == "memory" else 3), "all tables of training and evaluation went to disk"
    assert results["disk"] == results["memory"]


@pytest.mark.slow
def test_a_cache_folder_is_used_again(pictures, tmp_path, monkeypatch):
    chosen = {"cache_dir": str(tmp_path / "cache")}
    first = train(config(pictures, tmp_path / "a", 0.001, **chosen, max_bad_rows=5))
    added = []
    plain = TableStore.add
    monkeypatch.setattr(TableStore, "add", lambda self, part: added.append(1) or plain(self, part))
    second = train(config(pictures, tmp_path / "b", 0.001, **chosen, max_bad_rows=5, bad_rows="skip"))
    assert len(added) > 0, "bad rows are copied aside for one run: another one reads again"
    added.clear()
    third = train(config(pictures, tmp_path / "c", 0.001, **chosen, max_bad_rows=5, bad_rows="skip"))
    assert not added and third["data"] == second["data"]
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b") == weights_hash(tmp_path / "c")
    assert first["metrics"] == third["metrics"]
    os.utime(pictures / "top" / "1.jpg")
    train(config(pictures, tmp_path / "d", 0.001, **chosen, max_bad_rows=5, bad_rows="skip"))
    assert added, "a picture that changed is read again"


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_large_tables import config
from appzoo.jobs.train import train
from easytransfer.train.resume import RunCheckpoints
plain = RunCheckpoints.save
def save(self, progress):
    plain(self, progress)
    os.kill(os.getpid(), signal.SIGKILL)
RunCheckpoints.save = save
train(config(Path(sys.argv[2]), Path(sys.argv[3]), 0.001))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_table_that_is_there(pictures, tmp_path, monkeypatch):
    unbroken = train(config(pictures, tmp_path / "unbroken", 1024))
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(pictures), str(tmp_path / "killed")]
    killed = subprocess.run(arguments, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((tmp_path / "killed" / "cache").rglob("table.json"))
    bad = (tmp_path / "killed" / "bad_rows.train.tsv").read_text()
    monkeypatch.setattr(TableStore, "add", lambda *_: pytest.fail("the table on disk is read again"))
    resumed = train(config(pictures, tmp_path / "killed", 0.001))
    assert resumed["data"] == unbroken["data"] and resumed["metrics"] == unbroken["metrics"]
    assert weights_hash(tmp_path / "killed") == weights_hash(tmp_path / "unbroken")
    assert (tmp_path / "killed" / "bad_rows.train.tsv").read_text() == bad
