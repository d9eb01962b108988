"""Vision-language pre-training: what takes part in which loss, what rows take along, settings, metrics and scenes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from appzoo.vl_pretraining.config import FashionBertConfig, LampConfig
from appzoo.vl_pretraining.hiding import BY_NUMBER, OTHER_TEXTS, ROW_NUMBER, PairHider
from appzoo.vl_pretraining.metrics import PretrainEvaluator
from appzoo.vl_pretraining.network import row_losses
from appzoo.vl_pretraining.regions import RegionHider
from appzoo.vl_pretraining.scenes import COLOURS, OBJECTS, SHAPES, World, write_names, write_network
from appzoo.vl_pretraining.tasks import Tasks
from easytransfer.errors import ConfigError, DataError
from easytransfer.layers.draws import RowDraws
from easytransfer.text.hiding import WordHider

NAMES = {"model_name": "vl_pretraining_lamp", "checkpoint_dir": "x"}


def lamp(**model) -> Tasks:
    return Tasks.of(LampConfig(**NAMES, model=model))


def draws_of(rows: int, seed: int = 0) -> RowDraws:
    return RowDraws(tf.constant([seed, 1]), tf.constant(rows))


# Settings ----------------------------------------------------------------------------------------------------


def test_each_ablation_is_one_setting():
    every = ["mlm", "matching", "features", "objects", "attributes", "mlam", "label_match", "pointer"]

    def without(*names: str) -> list[str]:
        return [name for name in every if name not in names]

    labels = ("mlam", "label_match", "pointer")
    for settings, expected in (
        ({}, every),
        ({"labels": "none"}, without(*labels)),
        ({"labels": "text"}, without("label_match", "pointer")),
        ({"label_match": False}, without("label_match")),
        ({"label_pointer": False}, without("pointer")),
        ({"label_link": "box"}, without("pointer")),
        ({"classes": False, "labels": "none"}, ["mlm", "matching", "features"]),
        ({"matching": False}, without("matching")),
    ):
        assert list(lamp(**settings).weights) == expected, settings
    assert lamp().visibility == "regions_only" and lamp(labels="text").visibility == "all"
    assert lamp().confidence and not lamp(confidence_weights=False).confidence
    assert set(lamp().heads) == {"mlm", "matching", "features", "objects", "attributes", "label_match", "label_pointer"}
    weights = lamp(feature_weight=2, class_weight=3, label_weight=4).weights
    assert weights == dict(zip(every, (1, 1, 2, 3, 3, 4, 4, 4), strict=True))
    fashion = Tasks.of(FashionBertConfig(model_name="vl_pretraining_fashion_bert", checkpoint_dir="x"))
    assert list(fashion.weights) == ["mlm", "matching", "features"]
    assert fashion.adaptive and fashion.feature_loss == "kl" and not lamp().adaptive


def test_settings_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"set model.labels=tasks or text"):
        lamp(label_link="box", labels="none")
    with pytest.raises(ValueError, match="num_accumulated_batches=2"):
        LampConfig(**NAMES, model={"loss_weighting": "adaptive"}, train={"num_accumulated_batches": 2})
    with pytest.raises(ValueError, match=r"data\.label_name does not apply"):
        LampConfig(**NAMES, data={"label_name": "x"})


# Which items take part ---------------------------------------------------------------------------------------


def fabricated() -> tuple[dict, dict]:
    """Two rows, the second one with the text of another image; logits are all 0 but where said."""
    batch = {
        "hidden_ids": [[3, 5], [2, 0]],
        "hidden_weights": [[1.0, 1], [1, 0]],
        "match_label": [1, 0],
        "hidden_features": np.ones([2, 3, 4]),
        "hidden_regions": [[1.0, 0, 0], [0, 1, 0]],
        "region_mask": [[1, 1, 1], [1, 1, 0]],
        "object_id": [[0, 1, -1], [2, 9, 0]],
        "object_conf": [[0.5, 1, 1], [0.25, 1, 1]],
        "attribute_id": [[0, -1, -1], [-1, 1, 0]],
        "attribute_conf": [[0.5, 1, 1], [0.25, 0.75, 1]],
        "label_targets": [[7, 6, 3], [1, 2, 3]],
        "label_hidden": [[1.0, 0, 0], [0, 1, 0]],
        "label_original": [[1.0, 0], [1, 0]],
        "label_real": [[1.0, 1], [1, 0]],
        "label_regions": [[[0.0, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]]],
    }
    whole = ("_id", "_ids", "_mask", "_label", "targets")
    kinds = {name: np.int32 if name.endswith(whole) else np.float32 for name in batch}
    batch = {name: tf.constant(np.asarray(value, kinds[name])) for name, value in batch.items()}
    found = {
        "mlm_logits": tf.zeros([2, 2, 8]),
        "matching_logits": tf.constant([[0.0, 1.0], [0.0, 1.0]]),
        "feature_predictions": tf.zeros([2, 3, 4]),
        "object_logits": tf.zeros([2, 3, 5]),
        "attribute_logits": tf.zeros([2, 3, 2]),
        "label_mlm_logits": tf.zeros([2, 3, 8]),
        "label_match_logits": tf.zeros([2, 2, 2]),
        "pointer_scores": tf.zeros([2, 2, 3]),
    }
    return batch, found


def test_items_of_the_losses():
    """Uniform logits cost log(classes): the sums count the items, and say which rows they are of."""
    losses = row_losses(lamp(), *fabricated())
    one, two = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    expected = {
        # The hidden word of the exchanged text is no item.
        "mlm": ([2 * np.log(8), 0], [2, 0]),
        # 1 = matched.
        "matching": ([one, two], [1, 1]),
        # |1| costs 1/2.
        "features": ([0.5, 0.5], [1, 1]),
        # By confidence; unknown classes, classes beyond the head and padding are none.
        "objects": ([1.5 * np.log(5), 0.25 * np.log(5)], [2, 1]),
        "attributes": ([0.5 * np.log(2), 0.75 * np.log(2)], [1, 1]),
        "mlam": ([np.log(8), np.log(8)], [1, 1]),
        "label_match": ([2 * np.log(2), np.log(2)], [2, 1]),
        # Two regions of three share the target; of two regions one is it.
        "pointer": ([-np.log(2 / 3), -np.log(1 / 2)], [1, 1]),
    }
    assert losses.keys() == expected.keys()
    for name, (sums, weights) in expected.items():
        np.testing.assert_allclose(losses[name].sum, sums, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(losses[name].weight, weights, err_msg=name)


def test_classes_of_hidden_regions_and_without_confidence():
    batch, found = fabricated()
    masked = row_losses(lamp(object_loss_on="masked"), batch, found)
    np.testing.assert_array_equal(masked["objects"].weight, [1, 0])
    np.testing.assert_array_equal(masked["attributes"].weight, [1, 1])
    plain = row_losses(lamp(confidence_weights=False), batch, found)
    np.testing.assert_allclose(plain["objects"].sum, [2 * np.log(5), np.log(5)], rtol=1e-6)


# Texts of other images ---------------------------------------------------------------------------------------


class Forty(SimpleNamespace):
    """A tokenizer of forty whole words."""

    pad_id, mask_id = 0, 4
    special_ids = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    continues = np.zeros(40, bool)

    def __len__(self) -> int:
        return 40


def pair_hider(length: int = 6) -> PairHider:
    tokenizer = Forty()
    words = WordHider(tokenizer, share=0.15, most=3, max_length=length, independent=True)
    options = {"max_length": length, "other_texts": 2, "unmatched": 0.5, "seed": 1}
    return PairHider(tokenizer, words, RegionHider(2), None, **options)


def pair_batch(rows: int, width: int) -> dict[str, tf.Tensor]:
    """Texts of pieces 10; others of pieces 20 and 30; every fourth row has no others."""
    ids = np.zeros([rows, width], np.int32)
    ids[:, :4] = [2, 10, 10, 3]
    others = np.zeros([rows, 2, 6], np.int32)
    others[:, 0, :3], others[:, 1, :5] = [2, 20, 3], [2, 30, 30, 30, 3]
    others[::4] = 0
    features = np.arange(1, 4 * rows + 1, dtype=np.float32).reshape(rows, 2, 2)
    return {
        "input_ids": tf.constant(ids),
        "input_mask": tf.constant(np.int32(ids > 0)),
        "segment_ids": tf.zeros([rows, width], tf.int32),
        "features": tf.constant(features),
        "region_mask": tf.ones([rows, 2], tf.int32),
        OTHER_TEXTS: tf.constant(others),
        ROW_NUMBER: tf.range(rows),
    }


def test_half_of_the_texts_are_those_of_other_images():
    """Of 100,000 rows those that have others get one of them with 50 %, and are labelled so."""
    rows, same, first, second, hidden = 25_000, 0, 0, 0, []
    for seed in range(4):
        found = pair_hider().hide(pair_batch(rows, 8), draws_of(rows, seed))
        label, lengths = found["match_label"].numpy(), found["input_mask"].numpy().sum(axis=1)
        assert (label[::4] == 1).all() and found["input_ids"].shape == (rows, 6)
        np.testing.assert_array_equal(lengths == 4, label == 1)
        same, first, second = same + label.sum(), first + (lengths == 3).sum(), second + (lengths == 5).sum()
        hidden.append((found["hidden_weights"].numpy() > 0).any(axis=1).all())
    others = 0.75 * 4 * rows
    assert first / others == pytest.approx(0.25, abs=0.005) and second / others == pytest.approx(0.25, abs=0.005)
    assert same == 4 * rows - first - second
    # A word of texts of both kinds is hidden: the mask tells nothing.
    assert all(hidden)


def test_an_evaluation_hides_by_the_number_of_the_row():
    batch = pair_batch(40, 8)
    every = pair_hider().fixed(batch)
    some = pair_hider().fixed({name: value[10:20] for name, value in pair_batch(40, 16).items()})
    for name in ("input_ids", "features", "match_label", "hidden_positions", "hidden_regions"):
        np.testing.assert_array_equal(some[name], every[name][10:20], err_msg=name)
    again = pair_hider().fixed({**batch, ROW_NUMBER: batch[ROW_NUMBER] + 100})
    assert (again["match_label"].numpy() != every["match_label"].numpy()).any()
    # A table without labels has no numbers, and no texts to exchange.
    plain = {name: value for name, value in batch.items() if name not in (OTHER_TEXTS, ROW_NUMBER)}
    found = pair_hider().fixed(plain)
    assert (found["match_label"].numpy() == 1).all() and found["input_ids"].shape == (40, 6)
    assert not found[BY_NUMBER].numpy().any() and every[BY_NUMBER].numpy().all()


# The application on drawn scenes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_names(folder)
    write_network(folder / "network")
    return folder


def app_of(folder: Path, **settings):
    from appzoo.vl_pretraining.app import Lamp

    model = {"pretrain_model_name_or_path": str(folder / "network"), "from_scratch": True, "region_source": "records"}
    model |= {"label_slots": 4, "label_pieces": 9, **settings.pop("model", {})}
    data = {"sequence_length": 8, "image_column": "image", "object_names": str(folder / "objects.txt")}
    data |= {"attribute_names": str(folder / "attributes.txt"), **settings.pop("data", {})}
    app = Lamp(LampConfig(**NAMES, data=data, model=model))
    app.load_assets(None)
    return app


def chunk_of(columns: dict[str, list]):
    from easytransfer.data.table import BadRows, RowChunk, RowCount

    rows = len(next(iter(columns.values())))
    numbers = np.arange(rows)
    return RowChunk(
        columns, file="t", lines=numbers + 1, index=numbers, texts=[""] * rows, count=RowCount(rows, rows, 0),
        bad_rows=BadRows("skip"),
    )  # fmt: skip


def scene_chunk(app, monkeypatch, scenes: list[int], world: World | None = None, **columns):
    """Rows of scenes, whose regions need no file."""
    from appzoo.vl_pretraining.scenes import regions_of

    world = world or World(0)
    found = [(str(number), regions_of(world.scene(number))) for number in scenes]
    monkeypatch.setattr(app.inputs[1], "found", lambda chunk: iter(found))
    texts = [world.captions(number)[row % 3] for row, number in enumerate(scenes)]
    return chunk_of({"text": texts, "image": [str(number) for number in scenes], **columns})


def test_rows_take_along_texts_and_labels_of_other_images(network, monkeypatch):
    app = app_of(network)
    scenes = [0, 0, 1, 1, 2, 3, 4, 5]
    encoded = app.encode(scene_chunk(app, monkeypatch, scenes), True)
    texts = encoded.columns["input_ids"].padded(np.arange(8), 8)
    others, spare = encoded.columns[OTHER_TEXTS], encoded.columns["spare_labels"]
    labels = encoded.columns["stored_labels"]
    for row, scene in enumerate(scenes):
        far = [k for k, other in enumerate(scenes) if other != scene]
        assert all(any((text == texts[k]).all() for k in far) for text in others[row])
        known = {tuple(label) for k in far for label in labels[k].tolist()}
        assert {tuple(label) for label in spare[row].tolist()} <= known
    assert encoded.columns[ROW_NUMBER].tolist() == list(range(8))
    app.on_train_table(encoded)
    alone = app.encode(scene_chunk(app, monkeypatch, [0, 0, 0]), True)
    assert not alone.columns[OTHER_TEXTS].any()
    with pytest.raises(DataError, match="several images with different texts"):
        app.on_train_table(alone)


def test_texts_of_the_own_group_come_first(network, monkeypatch):
    app = app_of(network, data={"group_column": "kind"})
    assert "kind" in app.label_inputs()
    chunk = scene_chunk(app, monkeypatch, list(range(6)), kind=["a", "a", "b", "b", "c", "c"])
    encoded = app.encode(chunk, True)
    texts = encoded.columns["input_ids"].padded(np.arange(6), 8)
    for row in range(6):
        assert (encoded.columns[OTHER_TEXTS][row] == texts[row ^ 1]).all()


def test_classes_that_the_network_does_not_know_are_bad_rows(network, monkeypatch):
    app = app_of(network, model={"labels": "none"})
    chunk = scene_chunk(app, monkeypatch, [0, 1, 2])
    regions = [found for found in app.inputs[1].found(chunk)]
    regions[1][1].object_id[2] = len(SHAPES)
    monkeypatch.setattr(app.inputs[1], "found", lambda chunk: iter(regions))
    encoded = app.encode(chunk, True)
    assert chunk.accepted.tolist() == [True, False, True] and encoded.columns[ROW_NUMBER].tolist() == [0, 2]


def test_labels_need_names(network):
    with pytest.raises(ConfigError, match=r"data\.object_names"):
        app_of(network, data={"object_names": None})


def test_losses_have_divisors_of_their_own(network, monkeypatch):
    """One forward pass of the network: weights are counted in NumPy, and a row without weight counts nothing."""
    app = app_of(network)
    app.build_model()
    encoded = app.encode(scene_chunk(app, monkeypatch, [0, 1, 2, 3, 4, 5]), True)
    batch = {n: tf.constant(v) for n, v in app.evaluation_inputs(encoded.batch(np.arange(6))).items()}
    batch["example_weight"] = tf.constant([1.0, 1, 1, 1, 1, 0])
    hidden = app.training_batch(batch, draws_of(6, 3))
    outputs = app.forward(hidden, training=True)
    losses = app.losses(hidden, outputs, None)
    real = {name: value.numpy()[:5] for name, value in hidden.items()}
    counted = {
        "mlm_loss": (real["hidden_weights"] * real["match_label"][:, None]).sum(),
        "matching_loss": 5,
        "features_loss": real["hidden_regions"].sum(),
        "objects_loss": 20,
        "attributes_loss": 20,
        "mlam_loss": real["label_hidden"].sum(),
        "label_match_loss": real["label_real"].sum(),
        "pointer_loss": real["label_original"].sum(),
    }
    assert {name: float(loss.weight) for name, loss in losses.items()} == counted
    assert len(set(counted.values())) > 4
    np.testing.assert_allclose(losses["mlm_loss"].sum, outputs["mlm_sum"].numpy()[:5].sum(), rtol=1e-6)
    state = app.evaluator()
    state.update({}, {name: value.numpy()[:5] for name, value in outputs.items()})
    for name, loss in losses.items():
        assert state.result()[name] == pytest.approx(float(loss.sum) / float(loss.weight), rel=1e-5)


# Metrics and scenes ------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    tasks = lamp(class_weight=0.5, label_pointer=False, labels="tasks")
    evaluator, other = PretrainEvaluator(tasks), PretrainEvaluator(tasks)
    sums = {"mlm": (2, 4, 1), "matching": (1, 2, 2), "features": (3, 6, 0), "objects": (4, 8, 2)}
    sums |= {"attributes": (5, 5, 1), "mlam": (0, 0, 0), "label_match": (2, 4, 3)}
    outputs = {}
    for name, values in sums.items():
        for part, value in zip(("sum", "weight", "right"), values, strict=True):
            outputs[f"{name}_{part}"] = np.float32([value, 0])
    outputs["label_scores"] = np.float32([[3, 1, 9], [2, 0, 9]])
    outputs["label_original"] = np.float32([[1, 0, 1], [1, 1, 1]])
    outputs["label_real"] = np.float32([[1, 1, 0], [1, 1, 0]])
    evaluator.update({}, outputs)
    other.update({}, outputs)
    found = evaluator.result()
    assert found["mlm_loss"] == 0.5 and found["perplexity"] == pytest.approx(np.exp(0.5))
    assert found["mlm_accuracy"] == 0.25 and found["matching_accuracy"] == 1 and np.isnan(found["mlam_loss"])
    # Nothing of labels was hidden, which is no part of the sum.
    assert found["total_loss"] == pytest.approx(0.5 + 0.5 + 0.5 + 0.5 * (0.5 + 1) + 0.5)
    # Of three labels of the image 3 and 2 score above the replaced one's 1, 0 does not.
    assert found["label_match_auc"] == pytest.approx(2 / 3)
    evaluator.merge(other.state())
    assert evaluator.result() == pytest.approx(found, nan_ok=True)


def test_an_export_is_not_evaluated():
    evaluator = PretrainEvaluator(lamp())
    with pytest.raises(ConfigError, match="give the run folder"):
        evaluator.update({}, {BY_NUMBER: np.int32([0, 0])})


def test_scenes_are_as_the_protocol_says():
    """2,000 scenes: distinct objects, in half of them a shape twice, a detector that is right in 87 and 79 %."""
    world = World(0)
    scenes = [world.scene(number) for number in range(2000)]
    pairs = [set(zip(scene.shapes.tolist(), scene.colours.tolist(), strict=True)) for scene in scenes]
    assert all(len(pair) == OBJECTS for pair in pairs)
    assert np.mean([len(set(scene.shapes.tolist())) == 3 for scene in scenes]) == pytest.approx(0.5, abs=0.04)
    shapes, colours = (
        np.mean([(getattr(s, f"found_{name}") == getattr(s, name)).mean() for s in scenes])
        for name in ("shapes", "colours")
    )
    assert shapes == pytest.approx(0.85 + 0.15 / 8, abs=0.012)
    assert colours == pytest.approx(0.75 + 0.25 / 6, abs=0.015)
    boxes = np.array([scene.boxes for scene in scenes])
    assert (boxes[..., :2] < boxes[..., 2:]).all() and boxes.min() >= 0 and boxes.max() <= 1
    own = said = total = 0
    for number in range(500):
        scene = scenes[number]
        for text in world.captions(number):
            parts = [part.split() for part in text.removeprefix("a ").split(" and ")]
            assert len(parts) == 2 and all(part[-1] in SHAPES for part in parts)
            said, total = said + sum(len(part) == 2 for part in parts), total + 2
            own += all(
                any(
                    part[-1] == SHAPES[shape] and part[0] in (COLOURS[colour], part[-1])
                    for shape, colour in zip(scene.shapes, scene.colours, strict=True)
                )
                for part in parts
            )
    assert said / total == pytest.approx(0.5, abs=0.04)
    # Captions of other scenes fit by chance at times.
    assert 0.8 < own / 1500 < 0.86
    again = World(0).scene(7)
    np.testing.assert_array_equal(again.features, scenes[7].features)
    assert (World(1).scene(7).features != again.features).any()
