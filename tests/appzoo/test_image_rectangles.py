"""Images that are not square through a whole run: training, evaluation, prediction, export and serving."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo import jobs
from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.co_training.config import CoTrainingConfig
from appzoo.dimension_pruning.collect import size_label
from appzoo.image_app import ImageModel, stored_network
from appzoo.image_source import source_network
from easytransfer.errors import ModelError
from easytransfer.image.augment import Augmentation
from easytransfer.image.settings import AugmentSettings
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.layers.draws import RowDraws
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named
from modelzoo.cnn.profile import profile

ROWS = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a table of pictures, bright on the left or on the right below rows of noise, and a run on it."""
    folder, random = tmp_path_factory.mktemp("wide"), np.random.default_rng(2)
    lines = []
    for row in range(ROWS):
        pixels = random.integers(0, 90, (30, 80))
        pixels[:10] = random.integers(0, 256, (10, 80))
        pixels[10:, slice(0, 40) if row % 2 else slice(40, 80)] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{row}.png")
        lines.append(f"{row}.png\t{('right', 'left')[row % 2]}\n")
    (folder / "t.tsv").write_text("".join(lines))
    settings = {"network": "mlp8x1_digits", "image_size": "10,40", "crop_top": 10, "channels": 1}
    words = [
        *("--modelName=image_classify", f"--inputTable={folder}/t.tsv,{folder}/t.tsv", f"--checkpointDir={folder}/run"),
        *("--inputSchema=image:image:1,label:str:1", "--labelEnumerateValues=left,right", "--numEpochs=20"),
        *("--batchSize=8", "--learningRate=0.02", "--set=augment.horizontal_flip=false", "--set=augment.cutout_size=4"),
        *(f"--set=model.{name}={value}" for name, value in settings.items()),
    ]
    return folder, job("train", words)


def job(mode: str, words: list[str]) -> dict:
    return getattr(jobs, mode)(JobReader(mode, words, []).read().config)


def predicted(source, folder, name: str) -> list[dict]:
    output = folder / f"{name}.jsonl"
    job("predict", [f"--checkpointPath={source}", f"--inputTable={folder}/t.tsv", f"--outputTable={output}"])
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_it_learns_and_keeps_its_size(run):
    folder, result = run
    assert result["metrics"]["accuracy"] == 1.0
    network = stored_network(folder / "run")
    assert network.image_shape == (10, 40, 1)
    assert json.loads((folder / "run" / "network.json").read_text())["image_size"] == [10, 40]
    found = job("evaluate", [f"--checkpointPath={folder}/run", f"--inputTable={folder}/t.tsv"])
    assert found["metrics"] == pytest.approx(result["metrics"], abs=1e-6)


def test_the_run_its_export_and_the_served_graph_give_the_same_numbers(run, tmp_path):
    folder, result = run
    mine, theirs = predicted(folder / "run", folder, "run"), predicted(result["export"], folder, "export")
    assert len(mine) == ROWS and [row["predictions"] for row in mine] == ["right", "left"] * (ROWS // 2)
    loaded = tf.saved_model.load(result["export"])
    files = [(folder / f"{row}.png").read_bytes() for row in range(ROWS)]
    served = loaded.signatures["serving_default"](image_bytes=tf.constant(files))
    for one, other, probabilities in zip(mine, theirs, served["probabilities"].numpy(), strict=True):
        np.testing.assert_allclose(other["logits"], one["logits"], atol=1e-5)
        np.testing.assert_allclose(probabilities, one["probabilities"], atol=1e-5)
    assert loaded.signatures["predict_ids"].structured_input_signature[1]["image"].shape.as_list() == [None, 10, 40, 1]
    # The numbers tell rows apart.
    assert np.ptp([row["logits"] for row in mine], axis=0).min() > 0.1
    stream = io.BytesIO()
    Image.new("L", (80, 10)).save(stream, "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match="image too low: 10 rows are not more than crop_top=10"):
        loaded.signatures["serving_default"](image_bytes=tf.constant([stream.getvalue()]))


def test_served_answers_equal_those_in_memory(run):
    for package in ("tensorflow_serving", "starlette", "httpx"):
        pytest.importorskip(package)
    from pathlib import Path

    from served_answers import check_served

    check_served(Path(run[1]["export"]))


def test_a_source_of_another_shape_is_refused_in_one_line(run):
    folder, _ = run
    images = CoTrainingConfig(model={"image_size": [20, 40], "channels": 1}).model
    fix = r"takes images \[10, 40, 1\], and this run has \[20, 40, 1\]; set model.image_size=\[10,40\] model.channels=1"
    with pytest.raises(ModelError, match=fix):
        source_network(folder / "run", "the teacher", ["left", "right"], images)
    assert [network.image_shape for network in images.networks()] == [(20, 40, 1)] * 2


def test_networks_take_rectangles_and_counting_agrees_with_keras():
    for name in ("resnet8_cifar", "smallcnn_mnist", "mobilenet_v2_cifar"):
        config = named(name).replace(image_size=[16, 40])
        network = CnnBackbone(config, 3, seed=0)
        assert network(np.zeros([2, *config.image_shape], np.float32))["logits"].shape == (2, 3)
        trained = sum(np.prod(variable.shape) for variable in network.trainable_variables)
        assert profile(config, 3).parameters == trained
        # The multiply-accumulates of whole windows grow with the area.
        assert profile(config.replace(image_size=[32, 80]), 3).macs > 3 * profile(config, 3).macs
    with pytest.raises(ModelError, match=r"accepted: \[batch, 16, 40, 3\]"):
        network(np.zeros([2, 40, 16, 3], np.float32))
    statistics = ChannelStatistics((0.5,) * 3, (0.25,) * 3)
    smaller = ImageModel(network, statistics, config.image_size)
    assert smaller({"image": np.zeros([2, 32, 80, 3], np.uint8)})["logits"].shape == (2, 3)
    # One side alone differs.
    assert smaller({"image": np.zeros([2, 16, 80, 3], np.uint8)})["logits"].shape == (2, 3)


def test_all_augmentation_keeps_the_shape():
    settings = AugmentSettings(crop_padding=2, policy="auto_augment", cutout_size=4, erase_probability=1.0)
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 30, 3)).astype(np.uint8)
    draws = RowDraws(tf.constant([1, 2]), tf.constant(4))
    for policy in ("auto_augment", "rand_augment"):
        change = Augmentation(settings.model_copy(update={"policy": policy}), [0.5] * 3)
        assert change(images, draws).shape == images.shape


def test_the_cost_of_a_rectangle_is_printed(capsys):
    assert main(["profile", "resnet20_cifar", "--image-size=16,64", "--classes=10"]) == 0
    shown = capsys.readouterr().out
    assert "one image of 16x64, 10 classes" in shown
    assert main(["profile", "resnet20_cifar", "--image-size=32,32", "--classes=10", "--json"]) == 0
    square = json.loads(capsys.readouterr().out)
    assert square["image_size"] == 32
    # The same area, so the same work but for padded borders.
    assert f"{profile(named('resnet20_cifar').replace(image_size=[16, 64]), 10).macs:,}" in shown
    assert main(["profile", "resnet20_cifar", "--image-size=a"]) == 2


def test_pruning_in_resolution_keeps_the_shape():
    from types import SimpleNamespace

    from appzoo.dimension_pruning.collect import Collection

    collection = Collection.__new__(Collection)
    collection.settings = SimpleNamespace(resolution_multiple=4, resolution_levels=[0.75, 0.5])
    for size, expected in ((32, [("24", 24), ("16", 16)]), ((16, 64), [("12x48", (12, 48)), ("8x32", (8, 32))])):
        whole = named("resnet8_cifar").replace(image_size=size)
        found = [(label, config.image_size) for label, config in collection._levels(whole, "resolution", [])]
        assert found == expected
        assert collection.point(whole.replace(image_size=expected[1][1]), whole)[2] == 0.5
        smaller = [config.image_size for config in collection._candidates(whole, "resolution", [])]
        assert smaller[0] == whole.image_size and smaller[-1] == ((4, 16) if size != 32 else 4)
    assert size_label((16, 16)) == "16"
