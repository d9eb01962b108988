"""Image networks that start from the weights of a model: what it brings, what stays random, what is frozen."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hub_stand_in import hub_stand_in
from training import without_export

from appzoo import jobs
from appzoo.co_training.app import CoTraining
from appzoo.co_training.config import CoTrainingConfig
from appzoo.dimension_pruning.app import DimensionPruning
from appzoo.dimension_pruning.config import DimensionPruningConfig
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, ModelError
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.presets.folder import read_json, write_json
from easytransfer.presets.safetensors_file import read_safetensors_folder
from easytransfer.train.parameters import select_parameters
from easytransfer.train.trainer import Trainer
from modelzoo.commands import make_tiny

LABELS = ["cat", "dog", "owl"]
FORM = {
    "image_size": 16,
    "channels": 3,
    "channel_mean": [0.1, 0.2, 0.3],
    "channel_std": [0.4, 0.5, 0.6],
    "resize_mode": "crop",
}
RANDOM = np.random.default_rng(4)
ROWS = EncodedTable(
    {
        "image": RANDOM.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8),
        "label_id": RANDOM.integers(0, 3, 12).astype(np.int32),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model with ten classes whose images have a form of their own, no weight as a fresh one has it."""
    from modelzoo.cnn.backbone import CnnBackbone

    made = tmp_path_factory.mktemp("zoo") / "net"
    make_tiny(made, family="cnn")
    network = CnnBackbone.from_preset(made)
    random = np.random.default_rng(7)
    network.assign_weights(
        {name: value + random.uniform(0.1, 0.3, value.shape) for name, value in network.export_weights().items()}
    )
    network.save_to_preset(made, facts={"input": FORM}, overwrite=True)
    return made


def make(kind, config_class, model, **sections):
    values = {"data": {"label_enumerate_values": ",".join(LABELS)}, "model": model, **sections}
    app = kind(config_class(model_name="test", **values))
    app.load_assets(None)
    return app


def built(kind, config_class, model, **sections):
    app = make(kind, config_class, model, **sections)
    app.on_train_table(ROWS)
    app.build_model()
    return app


def classify(model, **sections):
    return built(ImageClassify, ImageClassifyConfig, model, **sections)


def assert_start(network, folder):
    """All weights but the classifier's are those of the folder."""
    stored = read_safetensors_folder(folder)
    own = network.export_weights()
    assert stored["logits/kernel"].shape != own["logits/kernel"].shape
    for name, value in own.items():
        if not name.startswith("logits/"):
            np.testing.assert_array_equal(value, stored[name], err_msg=name)


# What a model brings -----------------------------------------------------------------------------------------


def test_a_model_of_the_zoo_brings_the_form_of_its_images_and_weights():
    model = ImageClassifyConfig(model={"network": "efficientnet-lite0"}).model
    assert (model.image_size, model.channels, model.resize_mode, model.weights) == (224, 3, "crop", "pretrained")
    # (x - 127) / 128 of values from 0 to 255.
    pixels = np.array([0.0, 127.0, 255.0])
    found = (pixels / 255 - model.channel_mean[0]) / model.channel_std[0]
    np.testing.assert_allclose(found, (pixels - 127) / 128, atol=1e-12)


def test_what_is_given_stays():
    given = {"network": "efficientnet_lite0", "image_size": "128", "weights": "random", "resize_mode": "stretch"}
    model = ImageClassifyConfig(model=given).model
    assert (model.image_size, model.weights, model.resize_mode) == (128, "random", "stretch")
    statistics = {"channel_mean": [0.5] * 3, "channel_std": [0.2] * 3}
    model = ImageClassifyConfig(model={"network": "efficientnet-lite0", **statistics}).model
    assert (model.channel_mean, model.channel_std) == ([0.5] * 3, [0.2] * 3)
    # Statistics of another run come with its weights.
    start = {"init_checkpoint_path": "runs/before"}
    model = ImageClassifyConfig(model={"network": "efficientnet-lite0"}, train=start).model
    assert model.channel_mean is None and model.image_size == 224


def test_names_of_shapes_bring_nothing():
    for name in ("resnet8_cifar", "efficientnet_lite0_imagenet"):
        model = ImageClassifyConfig(model={"network": name}).model
        assert (model.image_size, model.weights, model.channel_mean) == (32, "random", None)
    assert ImageClassifyConfig().model.weights == "random"


def test_stored_settings_are_read_again_as_they_are():
    config = ImageClassifyConfig(model={"network": "efficientnet-lite0", "image_size": 64})
    again = ImageClassifyConfig.model_validate(config.model_dump())
    assert again == config and again.model.image_size == 64


def test_other_channels_than_the_model_has_are_one_line():
    with pytest.raises(ValueError, match="model.channels=1: efficientnet-lite0 takes images of 3 channels"):
        ImageClassifyConfig(model={"network": "efficientnet-lite0", "channels": 1})


def test_a_folder_that_describes_its_input_wrongly(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "net")
    manifest = read_json(tmp_path / "net" / "zoo.json")
    write_json(tmp_path / "net" / "zoo.json", {**manifest, "input": {"mean": 3}})
    with pytest.raises(ValueError, match="is not described as one; got .*mean.*accepted: image_size"):
        ImageClassifyConfig(model={"network": str(tmp_path / "net")})


# Weights -----------------------------------------------------------------------------------------------------


def test_the_body_is_that_of_the_folder_and_the_classifier_is_new(folder):
    app = classify({"network": str(folder)})
    assert app.config.model.weights == "pretrained"
    assert_start(app.model.network, folder)
    assert app.statistics == ChannelStatistics(tuple(FORM["channel_mean"]), tuple(FORM["channel_std"]))
    # As many classes as the model has: its classifier is not taken either.
    names = ",".join(f"c{i}" for i in range(10))
    ten = classify({"network": str(folder)}, data={"label_enumerate_values": names}).model.network.export_weights()
    stored = read_safetensors_folder(folder)
    assert ten["logits/kernel"].shape == stored["logits/kernel"].shape
    assert not np.array_equal(ten["logits/kernel"], stored["logits/kernel"])


def test_random_weights_have_the_same_shape_and_form(folder):
    app = classify({"network": str(folder), "weights": "random"})
    stored, own = read_safetensors_folder(folder), app.model.network.export_weights()
    assert not np.array_equal(own["stem_conv/kernel"], stored["stem_conv/kernel"])
    assert set(own) == set(stored) and app.statistics.mean == tuple(FORM["channel_mean"])


def test_a_model_that_is_not_here_names_the_line_that_gets_it(tmp_path):
    app = make(
        ImageClassify,
        ImageClassifyConfig,
        {"network": "efficientnet-lite0", "image_size": 32},
        runtime={"model_zoo_base_path": str(tmp_path)},
    )
    with pytest.raises(ModelError, match="`easy_transfer_app zoo fetch efficientnet-lite0 --offline=false`") as error:
        app.build_model()
    assert "\n" not in str(error.value) and error.value.exit_code == 4


def test_a_shape_without_weights_is_refused():
    app = make(ImageClassify, ImageClassifyConfig, {"network": "resnet8_cifar", "weights": "pretrained"})
    app.on_train_table(ROWS)
    with pytest.raises(ConfigError, match="known for resnet8_cifar; accepted: .*zoo list --type cnn"):
        app.build_model()


def test_a_path_without_a_model(tmp_path):
    app = make(ImageClassify, ImageClassifyConfig, {"network": str(tmp_path / "absent")})
    app.on_train_table(ROWS)
    with pytest.raises(ModelError, match="no model at .*absent"):
        app.build_model()


def test_members_of_an_ensemble_start_from_models(folder):
    app = built(CoTraining, CoTrainingConfig, {"members": f"{folder},{folder}"})
    for member in app.model.members:
        assert_start(member.network, folder)
    first, second = (member.network.export_weights()["logits/kernel"] for member in app.model.members)
    assert not np.array_equal(first, second)
    assert [len(group) for group in app.layer_groups()] == [2 * len(g) for g in app.model.members[0].layer_groups()]


def test_a_network_that_is_pruned_starts_from_a_model_and_its_parts_do_not(folder):
    app = make(DimensionPruning, DimensionPruningConfig, {"network": str(folder)})
    app.on_train_table(ROWS)
    shape = app.whole_network()
    assert_start(app.start_network(str(folder), shape, 0), folder)
    smaller = shape.replace(image_size=8)
    stored = read_safetensors_folder(folder)["stem_conv/kernel"]
    assert not np.array_equal(app.start_network(str(folder), smaller, 0).export_weights()["stem_conv/kernel"], stored)


@pytest.mark.parametrize("setting", ["network", "backbone_path"])
def test_re_identification_starts_from_models(folder, setting):
    from appzoo.person_reid.config import ReidSettings
    from appzoo.person_reid.network import start_body

    persons = ReidSettings(**{setting: str(folder)})
    assert persons.mean == tuple(FORM["channel_mean"]) and persons.std == tuple(FORM["channel_std"])
    stored, own = read_safetensors_folder(folder), start_body(persons, 0).export_weights()
    assert set(own) == {name for name in stored if not name.startswith("logits/")}
    assert all(np.array_equal(value, stored[name]) for name, value in own.items())
    random = start_body(ReidSettings(network=str(folder), weights="random"), 0).export_weights()
    assert not np.array_equal(random["stem_conv/kernel"], stored["stem_conv/kernel"])


def test_re_identification_keeps_its_own_defaults():
    from appzoo.person_reid.config import ReidSettings

    assert ReidSettings().mean == (0.485, 0.456, 0.406) and ReidSettings().weights == "random"
    lite = ReidSettings(network="efficientnet-lite0")
    assert lite.mean == pytest.approx([127 / 255] * 3) and lite.weights == "pretrained"
    assert lite.image_size == (256, 128)


def test_lanes_start_from_models(folder, tmp_path):
    from appzoo.lane_detection.config import BaselineConfig, LaneSettings
    from appzoo.lane_detection.network import backbone
    from modelzoo.cnn.backbone import CnnBackbone
    from modelzoo.cnn.names import named

    shape = named("resnet18_imagenet").scaled(1 / 16).replace(image_size=64)
    CnnBackbone(shape, 5, seed=3).save_to_preset(tmp_path / "net")
    stored = read_safetensors_folder(tmp_path / "net")
    body = backbone(LaneSettings(network=str(tmp_path / "net")), 0)
    assert body.config.output_stride == 8
    assert all(np.array_equal(value, stored[name]) for name, value in body.export_weights().items())
    with pytest.raises(ValueError, match="output_stride belongs to the families resnet"):
        BaselineConfig(model={"network": "efficientnet-lite0"})


# Freezing and rates by depth ---------------------------------------------------------------------------------


def test_groups_go_from_the_first_layers_to_the_classifier(folder):
    app = classify({"network": str(folder)})
    groups = app.layer_groups()
    names = [sorted({v.name.split("/")[0].split("_")[0] for v in group}) for group in groups]
    assert names == [["stem"], ["stage1"], ["stage2"], ["stage3"], ["logits"]]
    assert sum(map(len, groups)) == len(app.model.trainable_variables)
    train = app.config.train.model_copy(update={"layerwise_lr_decay": 0.5})
    (parameters,) = select_parameters(app, train).values()
    factors = {
        v.name.split("/")[0].split("_")[0]: f for v, f in zip(parameters.variables, parameters.factors, strict=True)
    }
    assert factors == {"stem": 1 / 16, "stage1": 1 / 8, "stage2": 1 / 4, "stage3": 1 / 2, "logits": 1.0}


def test_what_is_between_the_stages_and_the_classifier_is_a_group():
    app = classify({"network": "efficientnet_lite0_imagenet", "image_size": 32})
    last = [sorted({v.name.split("/")[0] for v in group}) for group in app.layer_groups()[-2:]]
    assert last == [["head_conv", "head_norm"], ["logits"]] and len(app.layer_groups()) == 10


@pytest.mark.parametrize(("frozen", "moved"), [(3, {"logits"}), (1, {"stage2", "stage3", "logits"})])
def test_frozen_layers_stay_bit_by_bit_their_statistics_too(folder, tmp_path, frozen, moved):
    app = classify(
        {"network": str(folder)},
        train={"num_freezed_layers": frozen, "num_epochs": 1, "batch_size": 4, "learning_rate": 0.1},
    )
    before = app.model.network.export_weights()
    batches = Batches(ROWS, 4, shuffle=True)
    Trainer(app, app.config.train, run_dir=tmp_path / "run").fit(batches, Batches(ROWS, 4, shuffle=False))
    after = app.model.network.export_weights()
    changed = {name.split("/")[0].split("_")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == moved
    statistics = {n for n in before if "moving" in n and not np.array_equal(before[n], after[n])}
    assert {name.split("_")[0] for name in statistics} == moved - {"logits"}


# A run and its export ----------------------------------------------------------------------------------------


def test_a_run_keeps_the_form_and_needs_the_model_no_more(folder, tmp_path):
    """Trained from a folder that is gone afterwards; rows that are no squares are cropped alike by file and server."""
    from PIL import Image

    from easytransfer.image.resize import Resizer

    shutil.copytree(folder, tmp_path / "net")
    rows = []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 31, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"image": f"{number}.png", "label": LABELS[number % 3]}))
    (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n")
    table, run = str(tmp_path / "t.jsonl"), tmp_path / "run"
    config = ImageClassifyConfig(
        model_name="image_classify",
        checkpoint_dir=str(run),
        model={"network": str(tmp_path / "net")},
        data={"train_table": table, "eval_table": table, "label_enumerate_values": ",".join(LABELS)},
        train={"num_epochs": 1, "batch_size": 4, "num_freezed_layers": 3},
        augment={"crop_padding": 0, "horizontal_flip": False},
    )
    with without_export():
        trained = jobs.train(config)
    shutil.rmtree(tmp_path / "net")
    stored = (
        ImageClassifyConfig.model_validate(read_json(run / "config.json"))
        if (run / "config.json").is_file()
        else config
    )
    assert stored.model.resize_mode == "crop" and stored.model.image_size == 16
    app = ImageClassify(stored)
    app.load_assets(run)
    app.build_model(run)
    assert app.statistics.mean == tuple(FORM["channel_mean"]) and trained
    assert app.inputs[0].mode == "crop"
    data = [(tmp_path / f"{number}.png").read_bytes() for number in range(6)]
    served = app.inputs[0].from_request({"image_bytes": tf.constant(data)})["image"]
    cut = Resizer(16, "crop")
    expected = [cut(np.asarray(Image.open(tmp_path / f"{number}.png"))) for number in range(6)]
    np.testing.assert_array_equal(served, np.stack(expected))
    # The network sees (x / 255 - mean) / deviation of that.
    normal = (np.stack(expected) / 255 - FORM["channel_mean"]) / FORM["channel_std"]
    logits = app.model({"image": served})["logits"]
    np.testing.assert_allclose(logits, app.model.network(normal.astype(np.float32))["logits"], atol=1e-4)


def test_a_model_of_the_hub_is_downloaded_by_a_job_that_may(folder, tmp_path, monkeypatch):
    """Its images are described in its files, so the configuration needs it; without the network the way is named."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model = {"network": "hf://someone/net"}
    with hub_stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        hub.add("someone/net", {path.name: path.read_bytes() for path in folder.iterdir()})
        with pytest.raises(ModelError, match="not been downloaded.*zoo fetch hf://someone/net --offline=false"):
            classify(model)
        assert not hub.asked
        app = classify(model, runtime={"offline": False})
        assert {name: getattr(app.config.model, name) for name in FORM} == FORM
        assert app.config.model.weights == "pretrained"
        assert_start(app.model.network, folder)
        asked = len(hub.asked)
        # A run has all settings: it is used without the network.
        type(app.config).model_validate(app.config.model_dump())
        assert len(hub.asked) == asked
        with pytest.raises(ValueError, match="model.network: .*no repository someone/other"):
            jobs_config({"network": "hf://someone/other"}, runtime={"offline": False})


def jobs_config(model, **sections):
    values = {"data": {"label_enumerate_values": ",".join(LABELS)}, "model": model, **sections}
    return ImageClassifyConfig(model_name="test", **values)
