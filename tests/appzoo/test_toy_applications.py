"""Seven kinds of application, each in one file of at most 60 lines outside of the checkout, through the whole contract.

No file of the project names them; what they need of the core they get from the contract.
"""

import importlib.metadata
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import at_every_commit
import numpy as np
import pytest
from safetensors.numpy import load_file
from training import without_export

from appzoo import discovery, jobs
from appzoo.cli.reader import JobReader
from easytransfer.distributed.launch import Hosts, launch
from easytransfer.errors import Interrupted
from easytransfer.image.files import data_text
from easytransfer.image.maps import encode_png

FILES = Path(__file__).parents[1] / "fixtures" / "toy_apps"
TOYS = sorted(path.stem for path in FILES.glob("*.py"))
MOST_LINES, ROWS = 60, 48
RANDOM_WORDS = ["red", "green", "blue", "old", "new", "big", "small", "fast"]
# Metric and the value that training reaches, from above or below.
GOALS = {
    "frames": ("accuracy", 0.95),
    "gan": ("distance", 3.0),
    "maps": ("pixel_accuracy", 0.95),
    "regions": ("accuracy", 0.95),
    "retrieval": ("rank_1", 0.9),
    "two_stages": ("accuracy", 0.95),
    "writing": ("exact_match", 0.5),
}
EPOCHS = {"writing": 30, "gan": 4, "maps": 16, "two_stages": 16}


def rows_of(toy: str) -> list[dict]:
    random = np.random.default_rng(1)
    found = []
    for number in range(ROWS):
        sign = 1 if number % 2 else -1
        vectors = random.normal(sign, 0.5, (random.integers(1, 7), 4)).round(3)
        if toy == "frames":
            row = {"frames": vectors[:, :3].ravel().tolist(), "label": ("down", "up")[number % 2]}
        elif toy == "regions":
            row = {"question": " ".join(random.choice(RANDOM_WORDS, 3)), "regions": vectors.ravel().tolist()}
            row["label"] = ("no", "yes")[number % 2]
        elif toy == "maps":
            image = random.integers(0, 256, (6, 8)).astype(np.uint8)
            mask = (image > 127).astype(np.uint8)
            row = {"image": data_text(encode_png(image)), "mask": data_text(encode_png(mask))}
        elif toy == "gan":
            row = {"points": random.normal([2, -1], 0.3).round(3).tolist()}
        elif toy == "two_stages":
            row = {"numbers": vectors[0].tolist(), "label": ("down", "up")[number % 2]}
        elif toy == "retrieval":
            identity = number % 4
            x = np.eye(3)[identity % 3] * (1 if identity < 3 else -1) + random.normal(0, 0.1, 3)
            row = {"x": x.round(3).tolist(), "is_query": [number % 3 % 2], "label": f"id{identity}"}
        else:
            text = " ".join(random.choice(RANDOM_WORDS[:4], random.integers(1, 3)))
            row = {"text": text, "answer": text}
        found.append(row)
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A package with the toys, found by its entry points, and a table for each."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "toys").mkdir()
    (folder / "toys" / "__init__.py").write_text("")
    info = folder / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"toy_{toy} = toys.{toy}" for toy in TOYS]
    (info / "entry_points.txt").write_text("\n".join(["[easytransfer.apps]", *lines]) + "\n")
    for toy in TOYS:
        shutil.copy(FILES / f"{toy}.py", folder / "toys")
        (folder / f"{toy}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(toy)))
    return folder


@pytest.fixture(scope="module", autouse=True)
def installed(package):
    sys.path.insert(0, str(package))
    discovery._entry_points.cache_clear()
    yield
    sys.path.remove(str(package))
    discovery._entry_points.cache_clear()


def arguments(package: Path, toy: str, run: Path, batch: int = 16) -> list[str]:
    table = package / f"{toy}.jsonl"
    chosen = {"checkpointDir": run, "inputTable": f"{table},{table}", "modelName": f"toy_{toy}"}
    chosen |= {"numEpochs": EPOCHS.get(toy, 8), "batchSize": batch, "learningRate": 0.05, "optimizerType": "adam"}
    if toy in ("frames", "regions", "retrieval", "two_stages"):
        chosen["labelName"] = "label"
    settings = {"runtime.deterministic": "true", "train.log_step_count_steps": 1}
    return [f"--{k}={v}" for k, v in chosen.items()] + [f"--set={k}={v}" for k, v in settings.items()]


def config_of(mode: str, words: list[str]):
    return JobReader(mode, words, []).read().config


def train(package: Path, toy: str, run: Path) -> dict:
    return jobs.train(config_of("train", arguments(package, toy, run)))


def weights_of(run: Path) -> dict[str, np.ndarray]:
    last = json.loads((run / "checkpoint.json").read_text())["last"]
    return load_file(run / last / "weights.safetensors")


def assert_equal_weights(a: Path, b: Path, tolerance: float = 0.0) -> None:
    one, other = weights_of(a), weights_of(b)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=tolerance, rtol=0, err_msg=name)


AT_EVERY_COMMIT = [pytest.param(name, marks=() if name in at_every_commit.TOYS else pytest.mark.slow) for name in TOYS]


@pytest.fixture(scope="module", params=AT_EVERY_COMMIT)
def toy(request, package, installed, tmp_path_factory):
    """Name, run folder and result of a training."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, run, train(package, request.param, run)


def test_each_is_one_short_file():
    assert len(TOYS) == 7
    lines = {name: len((FILES / f"{name}.py").read_text().splitlines()) for name in TOYS}
    assert all(count <= MOST_LINES for count in lines.values()), lines


def test_it_is_found_by_its_entry_point(package):
    assert {f"toy_{name}" for name in TOYS} <= discovery.applications().keys()
    assert importlib.metadata.version("toys") == "1.0"


def test_it_learns(toy):
    name, _, result = toy
    metric, goal = GOALS[name]
    value = result["metrics"][metric]
    assert value < goal if metric == "distance" else value > goal, result["metrics"]


def test_evaluation_equals_that_of_the_training(toy, package):
    name, run, result = toy
    words = [f"--checkpointPath={run}", f"--inputTable={package / name}.jsonl"]
    found = jobs.evaluate(config_of("evaluate", words))
    assert found["metrics"] == pytest.approx(result["metrics"], abs=1e-6) and found["read"] == ROWS


def predicted(package: Path, name: str, source: Path, output: Path) -> list[dict]:
    table = package / f"{name}.jsonl"
    words = [f"--checkpointPath={source}", f"--inputTable={table}", f"--outputTable={output}"]
    result = jobs.predict(config_of("predict", words))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == result["written"] == ROWS
    return rows


def test_the_export_predicts_what_the_run_predicts(toy, package, tmp_path):
    name, run, result = toy
    exported = Path(shutil.copytree(result["export"], tmp_path / "elsewhere" / "1"))
    mine = predicted(package, name, run, tmp_path / "run.jsonl")
    theirs = predicted(package, name, exported, tmp_path / "export.jsonl")
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys()
        for column, value in one.items():
            if isinstance(value, str):
                assert value == other[column]
            else:
                np.testing.assert_allclose(value, other[column], atol=2e-5)


def test_served_answers_equal_those_in_memory(toy):
    for package in ("tensorflow_serving", "starlette", "httpx"):
        pytest.importorskip(package)
    from served_answers import check_served

    check_served(Path(toy[2]["export"]))


def test_a_stopped_run_goes_on_to_the_same_weights(toy, package, tmp_path, monkeypatch):
    from easytransfer.run.report import RunReporter

    name, run, _ = toy
    plain = RunReporter.step

    def stopping(self, step, metrics):
        plain(self, step, metrics)
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunReporter, "step", stopping)
    with pytest.raises(Interrupted):
        train(package, name, tmp_path / "run")
    monkeypatch.setattr(RunReporter, "step", plain)
    with without_export():
        train(package, name, tmp_path / "run")
    assert_equal_weights(run, tmp_path / "run")


def test_a_stage_leaves_the_network_below_alone(package, tmp_path, toy):
    name, run, _ = toy
    if name != "two_stages":
        pytest.skip("only one has stages")
    short = tmp_path / "border"
    words = ["--numEpochs=0.01" if "numEpochs" in word else word for word in arguments(package, name, short)]
    jobs.train(config_of("train", words))
    border, end = weights_of(short), weights_of(run)
    moved = {key for key in border if not np.array_equal(border[key], end[key])}
    assert len(border) == 6 and moved == {key for key in border if "head/" in key}
    report = json.loads((run / "report.json").read_text())
    steps = {stage["name"]: stage["steps"] for stage in report["stages"]}
    assert steps == {"codes": [1, 36], "classes": [37, 84]}
    assert report["stages"][1]["metrics"]["accuracy"] > 0.95
    card = (run / "README.md").read_text()
    assert "### Stages" in card and "| codes | 1 to 36 |" in card


def test_a_result_file_in_a_form_of_its_own(package, tmp_path, toy):
    name, run, _ = toy
    if name != "maps":
        pytest.skip("only maps have one")
    output = tmp_path / "maps.challenge"
    words = [f"--checkpointPath={run}", f"--inputTable={package / name}.jsonl", f"--outputTable={output}"]
    assert jobs.predict(config_of("predict", words))["written"] == ROWS
    lines = output.read_text().splitlines()
    assert len(lines) == ROWS and lines[3].startswith("3: ") and len(lines[3].split()) == 49


@pytest.fixture(scope="module")
def runs_of_two_workers(request, package, tmp_path_factory) -> Path:
    """A folder with a run of every toy that is tested, trained by two workers."""
    pytest.importorskip("horovod")
    folder = tmp_path_factory.mktemp("two")
    paths = {"PYTHONPATH": f"{package}{os.pathsep}{Path(discovery.__file__).parents[1]}"}
    wanted = [name for name in TOYS if any(f"[{name}]" in item.name for item in request.session.items)]
    command = [sys.executable, str(Path(__file__).with_name("toy_workers.py")), str(package), str(folder), *wanted]
    assert launch(command, Hosts("localhost:2"), paths) == 0
    return folder


def test_two_workers_train_to_the_weights_of_one(toy, runs_of_two_workers):
    name, run, _ = toy
    assert_equal_weights(run, runs_of_two_workers / name, 2e-4)
