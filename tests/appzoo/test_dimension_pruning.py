"""The pipeline on a toy table: what is cut, what is kept, what a second start repeats, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from appzoo.dimension_pruning import collect
from appzoo.dimension_pruning.app import DimensionPruning
from appzoo.dimension_pruning.config import DimensionPruningConfig
from appzoo.dimension_pruning.feasible import check_rows
from appzoo.dimension_pruning.optimum import EXPONENTS
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ConfigError, ModelError
from easytransfer.export.compiled import Rounding, compiled, compiled_part
from easytransfer.train.trainer import Trainer
from modelzoo.cnn.profile import profile

LABELS = ["dark", "light", "striped"]


def table(rows: int = 60) -> EncodedTable:
    """Images of 16 x 16 in three kinds that even a tiny network tells apart."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    images = random.integers(0, 60, (rows, 16, 16, 1))
    images[labels == 1] += 180
    images[labels == 2, ::4] += 180
    return EncodedTable({"image": images.astype(np.uint8), "label_id": labels.astype(np.int32)})


def make_app(**model) -> DimensionPruning:
    values = {
        "network": "prunable_resnet14_w8_cifar", "image_size": 16, "channels": 1, "base_epochs": 2, "budget": 0.4,
        "depth_samples": 2, "width_levels": [0.75, 0.5], "resolution_levels": [0.75, 0.5], "sample_epochs": 0.5,
        "select_share": 0.3, "max_predictor_error": 1.0, **model,
    }  # fmt: skip
    config = DimensionPruningConfig(
        model_name="dimension_pruning",
        data={"label_enumerate_values": ",".join(LABELS)},
        model=values,
        train={"batch_size": 16, "eval_batch_size": 16, "learning_rate": 0.005},
        augment={"crop_padding": 0},
        runtime={"seed": 3},
    )
    app = DimensionPruning(config)
    app.load_assets(None)
    app.on_train_table(table())
    return app


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> tuple[DimensionPruning, Path]:
    app, folder = make_app(), tmp_path_factory.mktemp("prune")
    app.before_training(table(), folder, ONE_WORKER)
    app.save_assets(folder)
    return app, folder


def test_the_plan_keeps_its_budget_and_names_every_sample(pruned):
    app, folder = pruned
    plan = json.loads((folder / "pruning.json").read_text())
    names = [sample["name"] for sample in plan["samples"]]
    assert names == ["base", "depth-4-of-6", "depth-3-of-6", "width-0.75", "width-0.5", "resolution-12", "resolution-8"]
    whole = profile(app.whole_network(), 3)
    assert plan["whole"]["macs"] == whole.macs and plan["pruned"]["macs"] <= 0.4 * whole.macs
    assert plan["pruned"]["macs"] > 0.33 * whole.macs, "the width fills the budget"
    optimum = np.array([plan["optimum"][name] for name in ("depth", "width", "resolution")])
    assert np.prod(optimum**EXPONENTS) == pytest.approx(0.4, rel=1e-6)
    assert all(0 <= sample["accuracy"] <= 1 for sample in plan["samples"]) and plan["rows_held_out"] == 18
    # Each chain goes on from the sample before it: accuracies are those of the stored trainings.
    for sample in plan["samples"]:
        (found,) = folder.glob(f"samples/{sample['name']}-????????/result.json")
        assert json.loads(found.read_text())["accuracy"] == sample["accuracy"]


def test_the_pruned_network_starts_from_what_was_left(pruned):
    app, _ = pruned
    config, weights = app.start
    app.build_model()
    built = app.model.network.export_weights()
    assert built.keys() == weights.keys() and all(np.array_equal(built[name], weights[name]) for name in weights)
    assert app.model.network.config == config
    # It takes the table's images whatever its own size.
    assert app.model({"image": table(4).columns["image"]})["logits"].shape == (4, 3)


def test_weights_of_the_first_sample_of_a_chain_are_the_whole_networks(pruned, monkeypatch):
    """Before any of its own training steps, the first network of a chain is the whole one, cut."""
    app, folder = pruned
    found = {}
    plain = collect.Collection._train

    def watched(self, name, config, weights, *rest):
        found[name] = weights
        return plain(self, name, config, weights, *rest)

    monkeypatch.setattr(collect.Collection, "_train", watched)
    collection = collect.Collection(app, table(), folder, ONE_WORKER)
    collection.run()
    base = collection.weights(plain(collection, "base", app.whole_network(), None, 2.0, 0.005))
    stem = base["stem_conv/kernel"]
    np.testing.assert_array_equal(found["depth-4-of-6"]["stem_conv/kernel"], stem)
    np.testing.assert_array_equal(found["resolution-12"]["stem_conv/kernel"], stem)
    assert found["width-0.75"]["stem_conv/kernel"].shape == (3, 3, 1, 6)
    assert any(np.array_equal(found["width-0.75"]["stem_conv/kernel"][..., 0], stem[..., i]) for i in range(8))
    assert found["base"] is None


def test_a_second_start_repeats_nothing_and_comes_to_the_same(pruned, monkeypatch):
    app, folder = pruned
    monkeypatch.setattr(Trainer, "fit", lambda *arguments: pytest.fail("a finished sample was trained again"))
    again = make_app()
    again.before_training(table(), folder, ONE_WORKER)
    assert again.plan == app.plan and again.start[0] == app.start[0]
    assert all(np.array_equal(again.start[1][name], value) for name, value in app.start[1].items())


def test_other_settings_do_not_take_samples_of_these(pruned):
    app, folder = pruned

    def key(other, before=None, **train):
        collection = collect.Collection(other, table(), folder, ONE_WORKER)
        return collection._key(app.whole_network(), other.config.train.model_copy(update=train), before)

    first = key(app)
    assert first == key(make_app(budget=0.3, sample_epochs=0.6)), "decides the networks behind it only"
    others = [
        key(make_app(select_share=0.2)),
        key(app, num_epochs=0.7),
        key(app, collect.Sample("", None, 0, Path("x"))),
    ]
    assert len({first, *others}) == 4


@pytest.mark.parametrize("dimension", ["depth", "width", "resolution"])
def test_one_dimension_is_cut_alone_and_without_samples(pruned, dimension):
    app, folder = pruned
    alone = make_app(dimensions=[dimension], budget=0.6)
    # The network itself is the one trained before; its folder has the same settings.
    alone.before_training(table(), folder, ONE_WORKER)
    plan = alone.plan
    assert [sample["name"] for sample in plan["samples"]] == ["base"] and "predictor" not in plan
    assert plan["pruned"]["macs"] <= 0.6 * plan["whole"]["macs"]
    cut = {name for name in ("depth", "width", "resolution") if plan["pruned"][name] < 1}
    assert cut == {dimension}
    assert collect.profile(alone.start[0], 3).macs == plan["pruned"]["macs"]


def test_a_network_cut_in_resolution_is_compiled_behind_the_resizing(pruned):
    _, folder = pruned
    app, images = make_app(dimensions=["resolution"], budget=0.6), table().columns["image"][:3]
    app.before_training(table(), folder, ONE_WORKER)
    app.build_model()
    assert app.model.size < images.shape[1]
    with compiled(compiled_part(app.model), Rounding.up_to(4, 16)):
        served = tf.function(lambda image: app.model({"image": image}, training=False))
        call = served.get_concrete_function(tf.TensorSpec([None, *images.shape[1:]], tf.uint8))
    plain = app.model({"image": images}, training=False)
    np.testing.assert_allclose(call(tf.constant(images))["logits"], plain["logits"], atol=1e-5)
    assert any(f.attr["_XlaMustCompile"].b for f in call.graph.as_graph_def().library.function)


def test_the_picture_is_drawn(pruned):
    from appzoo.dimension_pruning.picture import draw

    app, folder = pruned
    assert draw(app.plan, folder / "pruning.png") and (folder / "pruning.png").read_bytes().startswith(b"\x89PNG")
    assert not draw({**app.plan, "predictor": None} and {"samples": []}, folder / "no.png")


def test_held_out_rows_are_a_share_of_each_class_and_no_training_rows():
    rows = table(61)
    rest, select = collect.hold_out(rows, 0.2)
    assert len(rest) + len(select) == 61
    assert np.bincount(select.columns["label_id"]).tolist() == [4, 4, 4]
    images = {image.tobytes() for image in rest.columns["image"]}
    assert not any(image.tobytes() in images for image in select.columns["image"])
    with pytest.raises(ConfigError, match="single row"):
        collect.hold_out(rows.take([0, 1, 3]), 0.5)


def test_a_network_of_another_run_must_fit(pruned, tmp_path):
    app, folder = pruned
    (base,) = folder.glob("samples/base-????????")
    app.save_assets(base)
    (base / "network.json").write_text(json.dumps(app.whole_network().to_dict()))
    taken = make_app(base_path=str(base), dimensions=["width"])
    assert taken.whole_network() == app.whole_network() and taken.statistics == app.statistics
    plan = json.loads(json.dumps(app.plan))
    taken.before_training(table(), tmp_path, ONE_WORKER)
    assert taken.plan["samples"][0]["accuracy"] == plan["samples"][0]["accuracy"]
    assert taken.frozen_records()["network to prune"]["path"] == str(base / "model.ckpt-6")
    for change in ({"image_size": 20}, {"channels": 3}):
        with pytest.raises(ModelError, match="the network to prune .* takes images"):
            make_app(base_path=str(base), **change)
    (base / "label_mapping.json").write_text((base / "label_mapping.json").read_text().replace("dark", "dim"))
    with pytest.raises(ModelError, match="other labels"):
        make_app(base_path=str(base))
    with pytest.raises(ModelError):
        make_app(base_path=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"width_levels": [0.5, 0.75]}, "width_levels"),
        ({"resolution_levels": []}, "resolution_levels"),
        ({"dimensions": ["depth", "depth"]}, "twice"),
        ({"dimensions": ["time"]}, "dimensions"),
        ({"budget": 1.0}, "budget"),
    ],
)
def test_settings_that_make_no_sense_are_refused(model, message):
    with pytest.raises(Exception, match=message):
        make_app(**model)


def test_a_network_of_another_family_is_refused():
    with pytest.raises(ModelError, match="cannot be removed"):
        make_app(network="densenet40_k12_cifar").whole_network()


@pytest.fixture
def no_training(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("nothing may be trained")

    monkeypatch.setattr(collect.Collection, "_train", forbidden)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (
            {"max_predictor_error": 0.04},
            [
                "one of 18 rows is 5.6 points of accuracy, and the predictor must see steps of 4;",
                "got '18 of 60 training rows (model.select_share=0.3)'",
                "25 rows or more (1 / model.max_predictor_error)",
                "set model.select_share=0.42, or give at least 84 training rows",
            ],
        ),
        # More than half of the table would be left out of the training.
        ({"max_predictor_error": 0.02}, ["50 rows or more", "give at least 167 training rows"]),
        ({"budget": 0.01}, ["the samples do not reach so small a budget", "got 'model.budget=0.01'"]),
        ({"dimensions": ["depth"], "budget": 0.2}, ["no depth is small enough for the budget"]),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_sample(model, parts, tmp_path, no_training):
    with pytest.raises(ConfigError) as caught:
        make_app(**model).before_training(table(), tmp_path, ONE_WORKER)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not list(tmp_path.iterdir())


def test_one_dimension_needs_no_rows_to_compare_samples_on(tmp_path, no_training):
    app = make_app(max_predictor_error=0.02, dimensions=["width"])
    with pytest.raises(AssertionError, match="nothing may be trained"):
        app.before_training(table(), tmp_path, ONE_WORKER)


@pytest.mark.parametrize(("rows", "warned"), [(50, True), (224, True), (225, False)])
def test_chance_that_hides_what_the_predictor_must_see_is_told(rows, warned, capsys):
    check_rows(rows, 20 * rows, make_app(max_predictor_error=0.02).config.model)
    text = capsys.readouterr().err
    assert ("225 rows would do" in text) == warned == ("chance moves an accuracy of 90%" in text)
