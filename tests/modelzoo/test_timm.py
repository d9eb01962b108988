"""Repositories of timm on a stand-in of the hub, against the same networks in PyTorch."""

import json

import numpy as np
import pytest
from hub_stand_in import hub_stand_in
from safetensors.numpy import save

from easytransfer.errors import ModelError
from easytransfer.presets import catalogue
from modelzoo import commands
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.layouts import stored_weights
from modelzoo.cnn.names import named
from modelzoo.cnn.pretrained import input_form, is_model, network_shape, start_network
from modelzoo.cnn.timm import architectures
from modelzoo.hub import obtain

torch = pytest.importorskip("torch", reason="PyTorch (extra test) is the reference")
from timm_torch import MAKE, ResNet, drawn  # noqa: E402 - needs PyTorch

MEAN, STD = [0.48, 0.46, 0.41], [0.23, 0.22, 0.2]
LISTED = {
    facts["network"].removeprefix("timm_"): facts
    for facts in catalogue.entries().values()
    if str(facts.get("network")).startswith("timm_")
}


def config(name, size=64, **changes):
    """Contents of a config.json as the repositories have them."""
    stated = {"input_size": [3, size, size], "mean": MEAN, "std": STD, "crop_pct": 0.95, "interpolation": "bicubic"}
    data = {"architecture": name, "num_classes": 1000, "num_features": 512, "global_pool": "avg"}
    return {**data, "pretrained_cfg": {"tag": "a1_in1k", "num_classes": 1000, **stated}, **changes}


def repository(network, data):
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    card = b"---\nlicense: apache-2.0\nlibrary_name: timm\n---\n"
    return {"config.json": json.dumps(data).encode(), "model.safetensors": save(arrays), "README.md": card}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_stand_in() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def folder(path, network, data):
    path.mkdir()
    for name, content in repository(network, data).items():
        (path / name).write_bytes(content)
    return str(path)


@pytest.fixture
def small(monkeypatch):
    """ResNet-18 with an eighth of its channels and one block for each stage, in PyTorch and as what is known of it."""
    widths = [8, 16, 32, 64]
    shape = {**architectures()["resnet18"]["network"], "stem_widths": [8], "blocks": [1, 1, 1, 1]}
    shape |= {"stage_widths": widths, "inner_widths": widths}
    monkeypatch.setitem(architectures(), "resnet18", {"layout": "timm_resnet", "network": shape})
    return drawn(lambda: ResNet((1, 1, 1, 1), False, first=8))


SLOW = ["resnet34", "resnet50", "wide_resnet50_2", "mobilenetv2_100"]


@pytest.mark.parametrize(
    "architecture", ["resnet18", "efficientnet_b0", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_features_of_a_repository_are_those_of_pytorch(architecture, stand_in, tmp_path):
    """By its listed name: download, weight map in both directions, mean and deviation of its config.json."""
    theirs, facts = drawn(MAKE[architecture]), LISTED[architecture]
    stand_in.add(facts["origin"]["id"], repository(theirs, config(architecture)))
    name, zoo = facts["name"], tmp_path / "zoo"
    assert is_model(name, zoo) and input_form(name, zoo) == facts["input"]
    assert commands.fetch(name, zoo, offline=False)["downloaded"]
    form = input_form(name, zoo)
    assert (form["image_size"], form["channel_mean"], form["channel_std"]) == (64, MEAN, STD)
    network = start_network(name, network_shape(name, zoo), None, 0, weights="pretrained", zoo=zoo)
    pixels = np.random.default_rng(0).integers(0, 256, [2, 64, 64, 3])
    images = ((pixels / 255 - np.float32(MEAN)) / np.float32(STD)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    found = network(images)["features"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    parameters = sum(value.numel() for value in theirs.parameters())
    statistics = sum(value.numel() for name, value in theirs.named_buffers() if value.ndim)
    assert facts["parameters"] == parameters + statistics == commands.show(name, zoo)["parameters"]


def test_a_repository_in_the_list_and_by_its_own_name(stand_in, tmp_path, small):
    zoo, repository_id = tmp_path / "zoo", LISTED["resnet18"]["origin"]["id"]
    with pytest.raises(ModelError, match="known but not on this machine.*zoo fetch timm-resnet18 --offline=false"):
        start_network("timm-resnet18", named("timm_resnet18"), 5, 0, weights="pretrained", zoo=zoo)
    stand_in.add(repository_id, repository(small, config("resnet18")))
    assert obtain(repository_id, zoo, offline=False).folder == obtain("timm-resnet18", zoo).folder
    rows = [row for row in commands.list_models(zoo, pattern="resnet18") if row["family"] == "cnn" and row["folder"]]
    assert [row["name"] for row in rows] == ["timm-resnet18"]
    assert commands.verify(f"hf://{repository_id}")["forward"] == "finite"
    shown = commands.show("timm-resnet18", zoo)
    assert shown["family"] == "cnn" and shown["origin"]["kind"] == "hub" and shown["licence"] == "apache-2.0"


def test_a_repository_that_is_not_listed(stand_in, tmp_path, small):
    """With another number of classes, and dilated for dense predictions."""
    small.fc = torch.nn.Linear(64, 7)
    stand_in.add("someone/resnet", repository(small, config("resnet18", num_classes=7)))
    name = "hf://someone/resnet"
    assert not is_model(name)
    obtain(name, offline=False)
    (row,) = commands.list_models(tmp_path, pattern="someone/resnet")
    assert row["input"] == {"image_size": 64} and row["licence"] == "apache-2.0" and row["parameters"]
    assert is_model(name) and CnnBackbone.from_preset(name).classes == 7
    shape = network_shape(name).replace(output_stride=8)
    body = start_network(name, shape, None, 0, weights="pretrained")
    assert body.feature_maps(np.zeros([1, 64, 64, 3], np.float32))[8].shape == (1, 8, 8, 64)


def test_the_map_is_checked_in_both_directions(tmp_path, small):
    values = {name: value.numpy() for name, value in small.state_dict().items()}
    path = tmp_path / "net"
    folder(path, small, config("resnet18"))
    for change, message in (
        ({"layer2.0.downsample.1.running_var": None}, "1 weights missing.*\n.*shortcut_norm/moving_variance"),
        ({"extra.weight": np.zeros(3, np.float32)}, "1 weights that the network has no place for"),
    ):
        changed = {name: value for name, value in {**values, **change}.items() if value is not None}
        (path / "model.safetensors").write_bytes(save(changed))
        with pytest.raises(ModelError, match=message):
            stored_weights(path)
    body = {name: value for name, value in values.items() if not name.startswith("fc.")}
    (path / "model.safetensors").write_bytes(save(body))
    (path / "config.json").write_text(json.dumps(config("resnet18", num_classes=0)))
    assert CnnBackbone.from_preset(path).classes is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "resnet50d"}, "network that is not known; got 'resnet50d'; accepted: .*resnet50"),
        ({"architecture": ["resnet18"]}, "network that is not known"),
        ({"model_args": {"output_stride": 8}}, "changes the network resnet18; got .*output_stride"),
        ({"global_pool": "max"}, "changes the network resnet18"),
        ({"num_classes": -1}, "num_classes is no number of classes"),
        ({"pretrained_cfg": {"input_size": [1, 28, 28], "mean": MEAN, "std": STD}}, "no size of colour images"),
        ({"pretrained_cfg": {"input_size": [3, 64, 64], "mean": MEAN, "std": [0.2, 0, 0.2]}}, "std above 0"),
        ({"pretrained_cfg": {"input_size": [3, 64, 64], "std": STD}}, "mean and std are not those"),
        ({"pretrained_cfg": 5}, "no size of colour images"),
    ],
)
def test_configurations_that_are_refused(stand_in, change, message):
    """Before the weights are downloaded."""
    stand_in.add("someone/net", {"config.json": json.dumps(config("resnet18", **change)).encode(), **NOTHING})
    with pytest.raises(ModelError, match=message):
        commands.fetch("hf://someone/net", offline=False)
    assert not any("safetensors" in path for path in stand_in.paths("GET"))


NOTHING = {"model.safetensors": b"never read"}


def test_older_configurations_have_their_entries_beside_the_rest(tmp_path, small):
    data = config("resnet18")
    path = folder(tmp_path / "old", small, {**data.pop("pretrained_cfg"), **data})
    assert input_form(path)["channel_mean"] == MEAN and network_shape(path).image_size == 64


def test_shapes_are_those_of_the_papers():
    """But for the padding, the epsilon and the share of the statistics of PyTorch."""
    names = {"wide_resnet50_2": "wrn50_2", "mobilenetv2_100": "mobilenet_v2"}
    for architecture in architectures():
        ours = named(f"{names.get(architecture, architecture)}_imagenet")
        theirs = named(f"timm_{architecture}")
        changes = {name: getattr(theirs, name) for name in ("padding", "norm_epsilon", "norm_momentum")}
        assert theirs == ours.replace(**changes) and theirs.norm_epsilon == 1e-5
        assert (theirs.padding == "symmetric") == (theirs.family in ("efficientnet", "mobilenet_v2"))
        assert LISTED[architecture]["network"] == f"timm_{architecture}"
