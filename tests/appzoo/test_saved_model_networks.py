"""SavedModels as networks of image applications: by folder and by address, trained, restored, exported."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from local_server import local_server
from PIL import Image

from appzoo import jobs
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer import keras
from easytransfer.image.resize import Resizer
from easytransfer.train import checkpoint

LABELS, MEAN, STD = ["cat", "owl"], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A network with the form of TF Hub's feature vectors: images from 0 to 1 to [batch, width]."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(6, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    network = keras.Sequential([keras.Input([16, 16, 3]), *layers])
    folder = tmp_path_factory.mktemp("hub") / "body"
    tf.saved_model.save(network, str(folder))
    return network, folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Six pictures that are no squares."""
    folder, rows = tmp_path_factory.mktemp("table"), []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 31, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(json.dumps({"image": f"{number}.png", "label": LABELS[number % 2]}))
    (folder / "t.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "t.jsonl"


def config(network, table, run, **runtime):
    form = {"image_size": 16, "resize_mode": "crop", "channel_mean": MEAN, "channel_std": STD}
    data = {"train_table": str(table), "eval_table": str(table), "label_enumerate_values": ",".join(LABELS)}
    return ImageClassifyConfig(
        model_name="image_classify",
        checkpoint_dir=str(run),
        model={"network": network, **form},
        data=data,
        train={"num_epochs": 1, "batch_size": 3, "learning_rate": 0.01},
        runtime=runtime,
    )


@pytest.mark.slow
def test_training_prediction_and_serving_see_images_in_the_declared_range(body, table, tmp_path):
    """The export answers for encoded pictures like the run, and without the SavedModel it was trained from."""
    copy, run = shutil.copytree(body[1], tmp_path / "body"), tmp_path / "run"
    settings = config(str(copy), table, run)
    jobs.train(settings)
    app = ImageClassify(settings)
    app.load_assets(run)
    app.build_model(run)
    checkpoint.load_weights(app.model, run)
    pictures = [table.parent / f"{number}.png" for number in range(6)]
    images = np.stack([Resizer(16, "crop")(np.asarray(Image.open(path))) for path in pictures])
    network = app.model.network
    # Pixels from 0 to 1: nothing is subtracted, and the trained weights moved from those of the SavedModel.
    trained = network((images / 255).astype(np.float32))["logits"]
    np.testing.assert_allclose(app.model({"image": images})["logits"], trained, atol=1e-5)
    start = body[0](images / 255).numpy()
    moved = network((images / 255).astype(np.float32))["features"].numpy()
    assert 0 < np.abs(moved - start).max() < 0.5
    shutil.rmtree(copy)
    exported = tf.saved_model.load(str(next(run.glob("export/**/saved_model.pb")).parent))
    answer = exported.signatures["serving_default"](image_bytes=tf.constant([p.read_bytes() for p in pictures]))
    expected = tf.nn.softmax(trained).numpy()
    np.testing.assert_allclose(answer["probabilities"].numpy(), expected, atol=1e-5)


def archive(folder):
    """A SavedModel as a hub sends it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False)
    return made.getvalue()


def test_an_address_is_downloaded_once_and_only_where_the_network_is_allowed(body, table, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    asked = []

    def get(handler):
        asked.append(handler.path)
        content = archive(body[1])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with local_server(get) as address:
        handle = f"{address}/google/feature_vector/1"
        with pytest.raises(ValueError, match="model.network: .*offline.*--offline=false"):
            config(handle, table, tmp_path / "run")
        assert asked == []
        app = ImageClassify(config(handle, table, tmp_path / "run", offline=False))
        app.load_assets(None)
        app.build_model()
        images = np.random.default_rng(0).uniform(0, 1, [2, 16, 16, 3]).astype(np.float32)
        np.testing.assert_allclose(app.model.network(images)["features"], body[0](images), atol=1e-5)
        assert asked == ["/google/feature_vector/1?tf-hub-format=compressed"]
        app.build_model()
        assert len(asked) == 1
