"""Configurations, names and costs of image networks: published tables, hand-worked layers, messages. No TensorFlow."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_cnn import TINY

from appzoo.cli.main import main
from easytransfer.errors import ConfigError, ModelError
from modelzoo.cnn import division, published
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named, names
from modelzoo.cnn.profile import CountingBuilder, LayerCost, Shape, profile, summary
from modelzoo.cnn.recipes import pyramid_widths


def test_published_figures_are_ours_within_the_stated_difference():
    rows = published.rows()
    assert len(rows) > 200
    assert [(row.name, row.what, row.ours, row.value) for row in rows if not row.agrees] == []


def test_every_allowed_difference_has_a_reason_and_is_small():
    for row in published.rows():
        assert row.what in published.QUANTITIES
        assert bool(row.allowed) == bool(row.note), row
        assert row.allowed <= 0.005 * row.value or row.allowed <= 0.02 or "not reproduced" in row.note, row


def test_readme_shows_the_computed_table():
    readme = Path(published.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert f"\n{published.markdown()}\n" in readme


def test_costs_of_single_layers_by_hand():
    b = CountingBuilder()
    x = b.conv(Shape(9, 9, 4), 6, 3, "strided", stride=2, groups=2, bias=True)
    assert b.layers[-1] == LayerCost("strided", "conv", Shape(5, 5, 6), 3 * 3 * 2 * 6 + 6, macs=25 * 3 * 3 * 2 * 6)
    b.depthwise(x, 5, "depthwise", stride=2)
    assert b.layers[-1] == LayerCost("depthwise", "depthwise", Shape(3, 3, 6), 150, macs=9 * 150)
    b.norm(x, "norm")
    assert b.layers[-1] == LayerCost("norm", "norm", x, 12, statistics=12, normalised=150)
    b.dense(b.flatten(x), 7, "dense")
    assert b.layers[-1] == LayerCost("dense", "dense", Shape(1, 1, 7), 151 * 7, macs=150 * 7)
    assert b.conv(x, 2, 3, "valid", padding="valid") == (3, 3, 2)
    # ceil mode of the shortcut's mean, and the transition of a DenseNet, which drops a row
    assert (b.mean_pool(x), b.mean_pool(x, "valid")) == ((3, 3, 6), (2, 2, 6))
    with pytest.raises(ValueError, match="cannot add"):
        b.add(x, Shape(5, 5, 5))


def test_cost_ratios_of_pruned_networks():
    """Ratios of MACs to the whole network that the pruning sheet measured: width, depth, resolution."""
    base = named("prunable_resnet20_w8_cifar")
    whole = profile(base, 10).macs

    def ratio(**changes):
        return profile(base.replace(**changes), 10).macs / whole

    assert profile(base.scaled(0.5), 10).macs / whole == pytest.approx(0.255, abs=5e-4)
    assert ratio(blocks=(1, 1, 1), inner_widths=(8, 16, 32)) == pytest.approx(0.351, abs=5e-4)
    assert ratio(blocks=(2, 2, 2)) == pytest.approx(0.675, abs=5e-4)
    assert ratio(image_size=24) == pytest.approx(0.5626, abs=1e-4)  # exactly 0.56251
    assert ratio(image_size=16) == pytest.approx(0.25, abs=5e-4)


@pytest.mark.parametrize("name", names())
def test_every_name_makes_a_configuration_that_survives_json(name):
    config = named(name)
    assert CnnConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert named(name.upper()) == config
    assert profile(config, 10).parameters > 0


def test_division_rules():
    widenings = {k: [division.wrn_widening(k, s) for s in (1, 2, 4, 8)] for k in (8, 10, 12)}
    assert widenings == {8: [8, 6, 4, 3], 10: [10, 7, 5, 3], 12: [12, 8, 6, 4]}
    densenet = [named(f"split{s}_densenet_bc190_k40_cifar") for s in (1, 2, 4)]
    assert [(c.growth, c.stem_widths[0]) for c in densenet] == [(40, 80), (28, 56), (20, 40)]
    # Dropout is divided by S in wide networks, by its root in SE nets; ShakeDrop by the root.
    assert [named(f"split{s}_wrn40_10_cifar").dropout for s in (1, 2, 4)] == [0.1, 0.05, 0.025]
    assert named("split4_se_resnet50_imagenet").dropout == pytest.approx(0.1)
    assert named("split4_pyramidnet272_a200_cifar").drop_path == pytest.approx(0.25)
    for name in ("split3_resnet110_cifar", "split2_resnet111_cifar", "split2_mobilenet_v2_cifar"):
        with pytest.raises(ModelError):
            named(name)


def test_a_network_known_from_its_division_only_has_a_name_of_its_own():
    assert named("wrn10_4_b4_digits") == named("split1_wrn10_4_b4_digits")
    found = [profile(named(f"split{s}_wrn10_4_b16_digits"), 10).parameters for s in (1, 2, 4)]
    assert found == [1_199_418, 677_658, 303_866]


def test_divided_networks_have_about_the_parameters_of_the_large_one():
    for name, factors in division.known().items():
        if not name.endswith("_cifar"):
            continue
        whole = profile(named(f"split1_{name}"), 100).parameters
        for factor in factors:
            total = factor * profile(named(f"split{factor}_{name}"), 100).parameters
            assert 0.85 <= total / whole <= 1.30, (name, factor)


def test_pyramid_widths_round_half_to_even():
    assert pyramid_widths(1, 0.5, start=2) == ((2,), (3,), (4,))  # 2.5, 3.0 and 3.5


def test_any_depth_and_width_has_a_name():
    assert named("wrn22_3_cifar").stage_widths == (48, 96, 192)
    assert named("resnext29_4x32d_cifar").groups == 4
    with pytest.raises(ModelError, match="did you mean resnet20_cifar"):
        named("resnet20_cifr")
    with pytest.raises(ModelError, match="there is no resnet21_cifar: depth 21 is not 2"):
        named("resnet21_cifar")


def test_unknown_keys_and_values_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="unknown key stage_width in x; did you mean stage_widths"):
        CnnConfig.from_dict({"family": "vgg", "stage_width": [4]}, source="x")
    with pytest.raises(ConfigError, match="unknown model setting dropot; did you mean dropout"):
        named("resnet20_cifar").replace(dropot=0.1)
    with pytest.raises(ConfigError, match="strides has 2 numbers, blocks has 3"):
        named("resnet20_cifar").replace(strides=(1, 2))
    with pytest.raises(ConfigError, match="multiples of groups = 8"):
        named("resnext29_8x64d_cifar").replace(inner_widths=(12, 16, 16))
    with pytest.raises(ConfigError, match="block_ids"):
        named("resnet20_cifar").replace(block_ids=((1, 2, 3), (1, 2), (1, 2, 3)))
    with pytest.raises(ConfigError, match="drop_path belongs to"):
        named("resnet20_cifar").replace(drop_path=0.1)
    with pytest.raises(ValidationError):
        CnnConfig(family="resnet", channels=2)
    with pytest.raises(ModelError, match=r"images of 4 pixels.*raise image_size"):
        profile(named("smallcnn_mnist").replace(image_size=4), 10)


def test_widths_are_scaled_everywhere():
    config = TINY["efficientnet"].scaled(2.0)
    assert (config.stem_widths, config.stage_widths, config.head_width) == ((8,), (16, 24), 32)
    assert TINY["resnet"].scaled(0.3, divisor=4).inner_widths == (4, (4, 4))


def test_latency_leaves_out_the_warm_up():
    found = summary([9.0] * 10 + [0.001, 0.002, 0.004], batch=8)
    assert found["median_ms"] == pytest.approx(2) and found["images_per_second"] == pytest.approx(4000)
    assert (found["fastest_ms"], found["slowest_ms"]) == (pytest.approx(1), pytest.approx(4))


def test_command_prints_a_table_and_json(capsys):
    assert main(["profile", "resnet20_cifar", "--classes=100", "--layers"]) == 0
    table = capsys.readouterr().out
    assert "278,324" in table and "40,818,944" in table
    assert any(line.split()[:3] == ["stage1_block1_conv1", "conv", "32x32x16"] for line in table.splitlines())
    assert main(["profile", "resnet20_cifar", "--classes=10", "--image-size=16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"]) and found["image_size"] == 16
    assert main(["profile", "--list"]) == 0
    assert capsys.readouterr().out.split() == names()


def test_command_says_what_is_wrong(capsys):
    for arguments, text in (
        (["nothing"], "unknown image network"),
        ([], "needs the name"),
        (["x", "--batch=0"], "batch"),
    ):
        assert main(["profile", *arguments]) != 0
        assert text in capsys.readouterr().err
