"""AdaBERT: samples, temperatures, costs and losses against NumPy; derivation and its file; searches and trainings."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tiny_text_distillation import LABELS, ROWS, batch_of, encoded, new_app, save_teacher, softmax, words

from appzoo.adabert.architecture import EDGES, NODES, OPERATIONS, Architecture, derive
from appzoo.adabert.config import AdaBertConfig
from appzoo.adabert.network import AdaBertModel, Cell, avg_pool, max_pool
from appzoo.adabert.search import (
    gumbel_choice,
    layer_table,
    layers_distance,
    network_cost,
    operation_costs,
    strongest,
    temperature,
)
from easytransfer.data.batches import Batches
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.train.step import EVALUATION
from easytransfer.train.trainer import Trainer

SMALL = {"hidden_size": 6, "max_cells": 2, "dropout_rate": 0.0}
ONE_OF_EACH = [(0, 0, ("conv_3",)), (1, 2, ("dilated_conv_5",)), (1, 0, ("max_pool_3",)), (2, 1, ("avg_pool_3",))]


@pytest.fixture(scope="module")
def tiny(tiny_model) -> dict[str, Any]:
    return {"pretrain_model_name_or_path": str(tiny_model), **SMALL}


@pytest.fixture(scope="module")
def teacher(tiny_model, tmp_path_factory):
    model = {"pretrain_model_name_or_path": str(tiny_model)}
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run", "text_classify_bert", model)


def searching(model: dict[str, Any], teacher=None, **sections: Any):
    given = {"kd_weight": 0} if teacher is None else {"teacher": str(teacher)}
    app = new_app("adabert", model, distillation={**given, **sections.pop("distillation", {})}, **sections)
    app.load_assets(None, words)
    return app


# Samples -----------------------------------------------------------------------------------------------------


def test_temperature_falls_to_a_fifth():
    found = [float(temperature(tf.constant(step, tf.int64), 200)) for step in (0, 50, 100, 200, 900)]
    np.testing.assert_allclose(found, [1.0, 0.8, 0.6, 0.2, 0.2], rtol=1e-6)


def test_choices_are_drawn_as_often_as_the_softmax_says():
    weights = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    uniform = np.random.default_rng(1).random((40_000, 4)).astype(np.float32)
    for heat in (1.0, 0.2):
        drawn = gumbel_choice(tf.tile(weights[None], [40_000, 1]), tf.constant(uniform), tf.constant(heat)).numpy()
        np.testing.assert_allclose(drawn.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(drawn.max(axis=1), 1, atol=1e-5)
        # Three standard deviations of a share of a half.
        np.testing.assert_allclose(drawn.round().mean(axis=0), softmax(weights), atol=3 * 0.5 / 200)


def test_the_gradient_of_a_choice_is_that_of_the_soft_one():
    random = np.random.default_rng(2)
    weights, uniform, worth = random.normal(size=5), random.random(5), random.normal(size=5)
    # An edge of the interval is no infinity.
    uniform[0] = 0.0
    heat, noise = 0.7, -np.log(-np.log(np.maximum(uniform, 2.0**-25)))

    def soft(w: np.ndarray) -> float:
        return worth @ softmax((w + noise) / heat)

    expected = [(soft(weights + d) - soft(weights - d)) / 2e-5 for d in np.eye(5) * 1e-5]
    variable = tf.Variable(weights, dtype=tf.float32)
    with tf.GradientTape() as tape:
        choice = gumbel_choice(variable, tf.constant(uniform, tf.float32), tf.constant(heat))
        value = tf.reduce_sum(choice * tf.constant(worth, tf.float32))
    assert np.isfinite(choice).all() and choice.numpy().argmax() == (weights + noise).argmax()
    np.testing.assert_allclose(tape.gradient(value, variable), expected, atol=1e-4)


# Costs and losses --------------------------------------------------------------------------------------------


def test_costs_are_counted():
    """Weights as layers have them; one multiplication and one addition for each weight of a filter and token."""
    costs, width = operation_costs(6), 6
    layers = Cell([(0, 0, OPERATIONS)], width, "cell")
    layers([tf.zeros([1, 4, width])] * 2, tf.ones([1, 4, 1]), tf.ones([1, len(OPERATIONS)]))
    sizes = np.zeros(len(OPERATIONS))
    for i, name in enumerate(OPERATIONS):
        if f"{name}_0_to_0" in layers.convolutions:
            sizes[i] = layers.convolutions[f"{name}_0_to_0"].count_params()
    works = np.array([2 * k * 36 for k in (3, 5, 7, 3, 5, 7)] + [18, 18, 0, 0])
    np.testing.assert_allclose(costs, sizes / sizes.max() + works / works.max(), rtol=1e-6)
    assert costs.max() == 2 and costs[OPERATIONS.index("identity")] == costs[OPERATIONS.index("zero")] == 0
    random = np.random.default_rng(3)
    edges, depth = softmax(random.normal(size=(len(EDGES), 10))), softmax(random.normal(size=4))
    expected = (depth @ [1, 2, 3, 4]) / 4 * (edges @ costs).mean()
    found = network_cost(tf.constant(edges, tf.float32), tf.constant(depth, tf.float32), 6)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_cells_learn_from_the_layers_at_their_height():
    table = layer_table(3, 6)
    pairs = {k: [(i + 1, int(j)) for i, j in zip(*np.nonzero(table[k - 1]), strict=True)] for k in (1, 2, 3)}
    assert pairs == {1: [(1, 6)], 2: [(1, 3), (2, 6)], 3: [(1, 2), (2, 4), (3, 6)]}
    random = np.random.default_rng(4)
    ours, theirs = random.normal(size=(5, 3, 2)), random.normal(size=(5, 7, 2))
    depth = np.tile(softmax(random.normal(size=3)), (5, 1))
    expected = np.zeros(5)
    for k, those in pairs.items():
        terms = [-(softmax(theirs[:, j]) * np.log(softmax(ours[:, i - 1]))).sum(axis=1) for i, j in those]
        expected += depth[:, k - 1] * np.mean(terms, axis=0)
    given = [tf.constant(each, tf.float32) for each in (ours, theirs, depth)]
    np.testing.assert_allclose(layers_distance(*given, table), expected, rtol=1e-5)


# Operations --------------------------------------------------------------------------------------------------


def test_pools_look_at_tokens_alone():
    x = tf.constant([[[1.0], [-3.0], [-5.0], [7.0]]])
    real = tf.constant([[[1.0], [1.0], [1.0], [0.0]]])
    np.testing.assert_allclose(max_pool(x, real)[0, :, 0], [1, 1, -3, 0])
    np.testing.assert_allclose(avg_pool(x, real)[0, :, 0], [-1, -7 / 3, -4, 0], rtol=1e-6)


def test_a_cell_is_that_of_numpy_and_padding_changes_nothing():
    random, width = np.random.default_rng(5), 4
    cell = Cell(ONE_OF_EACH, width, "cell")
    x = random.normal(size=(2, 1, 7, width)).astype(np.float32)
    real = tf.ones([1, 7, 1])
    cell([tf.constant(x[0]), tf.constant(x[1])], real)
    cell.set_weights([w + random.normal(0, 0.5, w.shape) for w in cell.get_weights()])
    found = cell([tf.constant(x[0]), tf.constant(x[1])], real).numpy()[0]

    def convolve(values: np.ndarray, name: str, dilation: int) -> np.ndarray:
        layer = cell.convolutions[name]
        kernel, bias = layer.convolution.get_weights()
        reach = dilation * (len(kernel) - 1) // 2
        shown = np.pad(np.maximum(values, 0), [(reach, reach), (0, 0)])
        rows = np.stack([sum(shown[t + dilation * k] @ kernel[k] for k in range(len(kernel))) for t in range(7)]) + bias
        gamma, beta = layer.normalization.get_weights()
        return (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-6) * gamma + beta

    def windows(values: np.ndarray, pool) -> np.ndarray:
        return np.stack([pool(values[max(t - 1, 0) : t + 2], axis=0) for t in range(7)])

    a, b = x[0, 0], x[1, 0]
    first = convolve(a, "conv_3_0_to_0", 1)
    second = convolve(first, "dilated_conv_5_2_to_1", 2) + windows(a, np.max)
    third = windows(b, np.mean)
    shares = softmax(cell.node_weights.numpy())
    np.testing.assert_allclose(found, shares[0] * first + shares[1] * second + shares[2] * third, atol=1e-4)

    longer = [tf.pad(tf.constant(each), [[0, 0], [0, 3], [0, 0]]) for each in x]
    padded = cell(longer, tf.pad(real, [[0, 0], [0, 3], [0, 0]])).numpy()[0]
    np.testing.assert_allclose(padded[:7], found, atol=1e-5)
    assert not padded[7:].any()


# Derivation --------------------------------------------------------------------------------------------------


def test_a_derivation_by_hand(tmp_path):
    edges, place = np.zeros((len(EDGES), 10)), {name: i for i, name in enumerate(OPERATIONS)}
    edges[:, place["zero"]] = 9.0  # never taken, and it weakens what stands beside it
    for (node, source), (name, weight) in {
        (0, 0): ("conv_3", 12.0), (0, 1): ("identity", 10.0),
        (1, 0): ("max_pool_3", 11.0), (1, 1): ("conv_7", 8.0), (1, 2): ("avg_pool_3", 10.0),
        (2, 0): ("conv_5", 9.0), (2, 1): ("dilated_conv_3", 13.0), (2, 2): ("conv_3", 8.0), (2, 3): ("conv_3", 12.0),
    }.items():  # fmt: skip
        edges[EDGES.index((node, source)), place[name]] = weight
    depth = np.array([0.1, 0.4, 0.3])
    found = derive(edges, depth)
    nodes = (
        ((0, "conv_3"), (1, "identity")),
        ((0, "max_pool_3"), (2, "avg_pool_3")),
        ((1, "dilated_conv_3"), (3, "conv_3")),
    )
    assert found == Architecture(2, nodes)
    kept = strongest(tf.constant(edges, tf.float32)).numpy()
    assert {(*EDGES[e], OPERATIONS[o]) for e, o in zip(*np.nonzero(kept), strict=True)} == set(found.edges)
    assert kept.sum() == 2 * NODES
    random = np.random.default_rng(8)
    for _ in range(5):
        weights = random.normal(size=(len(EDGES), 10)).astype(np.float32)
        kept = strongest(tf.constant(weights)).numpy()
        same = {(*EDGES[e], OPERATIONS[o]) for e, o in zip(*np.nonzero(kept), strict=True)}
        assert same == set(derive(weights, depth).edges)
    found.save(tmp_path)
    assert json.loads((tmp_path / "arch.json").read_text()) == {
        "version": 1,
        "cells": 2,
        "nodes": [[list(edge) for edge in node] for node in nodes],
    }
    assert Architecture.load(tmp_path) == Architecture.load(tmp_path / "arch.json") == found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version 2, and this program reads 1"),
        ({"cells": 0}, "cells is 0, not a whole number from 1 up"),
        ({"nodes": [[[0, "conv_3"]]]}, "nodes is not a list of 3"),
        ({"nodes": [[], [[0, "zero"]], [[0, "zero"]]]}, "node 0 has no edges"),
        ({"nodes": [[[2, "conv_3"]], [[0, "zero"]], [[0, "zero"]]]}, "node 0 has the source 2, not 0 to 1"),
        ({"nodes": [[[0, "conv_9"]], [[0, "zero"]], [[0, "zero"]]]}, r"node 0 has the edge \[0, \"conv_9\"\]"),
        ({"nodes": [[[0, "zero"], [0, "conv_3"]], [[0, "zero"]], [[0, "zero"]]]}, "two edges of one source"),
        ({"more": 1}, "not an object of version, cells and nodes"),
    ],
)
def test_what_is_no_architecture_is_refused_in_one_line(change, reason, tmp_path):
    whole = {"version": 1, "cells": 1, "nodes": [[[0, "zero"]]] * 3} | change
    (tmp_path / "arch.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"arch.json is no architecture: .*{reason}") as caught:
        Architecture.load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the architecture .*give the arch.json of a finished search"):
        Architecture.load(tmp_path / "gone.json")


# The application ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learner(tiny, teacher, tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("search")
    app = searching(tiny, teacher, train={"batch_size": 4}, distillation={"kd_weight": 0.6, "probe_epochs": 1})
    table = encoded(app, folder)
    app.on_train_table(table)
    app.before_training(table, folder, ONE_WORKER)
    app.build_model()
    random = np.random.default_rng(3)
    app.model.set_weights([w + random.normal(0, 0.2, w.shape).astype(np.float32) for w in app.model.get_weights()])
    return SimpleNamespace(app=app, table=table, folder=folder)


def test_losses_of_a_search_are_those_of_numpy(learner):
    app, table = learner.app, learner.table
    batch = batch_of(table, size=6)
    outputs = app.forward(batch)
    found = {n: float(total / weight) for n, (total, weight) in app.losses(batch, outputs, EVALUATION).items()}
    labels, cells = table.columns["label_id"], derive(app.model.search_weights.edges.numpy(), np.eye(2)[0])
    assert labels.tolist() == [1, 0, -1, 2]
    depth = int(app.model.search_weights.depth.numpy().argmax())
    logits = outputs["layer_logits"].numpy()[:4]
    np.testing.assert_allclose(outputs["logits"].numpy()[:4], logits[:, depth], atol=1e-6)
    hard = -np.log(softmax(logits[:, depth]))[np.arange(4), np.maximum(labels, 0)] * (labels >= 0)
    states = app.teacher.inside(batch, attentions=False)["hidden_states"].numpy()[:4]
    mask = batch["input_mask"].numpy()[:4, :, None]
    vectors = [(states[:, 0] * mask).sum(1) / mask.sum(1), *(states[:, i, 0] for i in range(1, states.shape[1]))]
    probes = app.model.teacher_probes
    parts = zip(vectors, probes.kernel.numpy(), probes.bias.numpy(), strict=True)
    theirs = np.stack([vector @ kernel + bias for vector, kernel, bias in parts], axis=1)
    np.testing.assert_allclose(outputs["teacher_layer_logits"].numpy()[:4], theirs, atol=1e-5)
    layers = len(vectors) - 1
    soft = np.mean(
        [
            -(softmax(theirs[:, -(-(i + 1) * layers // (depth + 1))]) * np.log(softmax(logits[:, i]))).sum(1)
            for i in range(depth + 1)
        ],
        axis=0,
    )
    costs = operation_costs(6)
    cost = (depth + 1) / 2 * sum(costs[OPERATIONS.index(name)] for *_, name in cells.edges) / len(EDGES)
    expected = {"ce_loss": 0.4 * hard.mean(), "kd_loss": 0.6 * soft.mean(), "efficiency_loss": 4 * cost}
    assert found == pytest.approx(expected, rel=1e-4)
    assert app.forward({n: x for n, x in batch.items() if n != "label_id"}).keys() == {"logits"}


def test_what_is_found_answers_as_in_the_search(learner, tiny, tmp_path):
    """The derived network with the weights of the search is the one that evaluations of the search measure."""
    app = learner.app
    assert app.write_pages(tmp_path, learner.table, {}) == []
    found = Architecture.load(tmp_path)
    assert found == app.architecture()
    derived = searching({**tiny, "arch_path": str(tmp_path)})
    derived.build_model()
    own = {v.name: v for v in app.model.weights}
    for variable in derived.model.weights:
        value = own[variable.name].numpy()
        variable.assign(value[: variable.shape[0]] if "heads" in variable.name else value)
    batch = {n: x for n, x in batch_of(learner.table).items() if n.startswith(("input", "segment"))}
    np.testing.assert_allclose(derived.forward(batch)["logits"], app.forward(batch)["logits"], atol=1e-5)
    assert len(derived.model.cells) == found.cells and derived.model.search_weights is None
    # A run is built again from its folder alone.
    (tmp_path / "run").mkdir()
    derived.save_assets(tmp_path / "run")
    again = new_app("adabert", {**tiny, "arch_path": "gone"}, distillation={"kd_weight": 0})
    again.load_assets(tmp_path / "run")
    assert [w.shape for w in again.build_model(tmp_path / "run").weights] == [w.shape for w in derived.model.weights]
    (tmp_path / "search").mkdir()
    app.save_assets(tmp_path / "search")
    again = new_app("adabert", tiny, distillation={"kd_weight": 0})
    again.load_assets(tmp_path / "search")
    assert [w.shape for w in again.build_model(tmp_path / "search").weights] == [w.shape for w in app.model.weights]


@pytest.mark.slow
def test_stages_train_what_is_theirs(learner, monkeypatch):
    app, table = learner.app, learner.table
    assert sorted(table.columns["search_stream"]) == [0, 0, 1, 1]
    before = {v.name: v.numpy() for v in app.model.weights}
    settings = app.config.train.model_copy(update={"num_epochs": 1, "learning_rate": 1e-2})
    moved = {}
    trainer = Trainer(app, settings, app.config.runtime)
    stages = app.stages()
    assert [(stage.name, stage.epochs) for stage in stages] == [("teacher_probes", 1), ("search", None)]

    def note() -> None:
        moved["probes"] = {v.name for v in app.model.weights if not np.array_equal(v, before[v.name])}
        before.update({v.name: v.numpy() for v in app.model.weights})

    monkeypatch.setattr(app, "stages", lambda: [stages[0], replace(stages[1], begin=note)])
    trainer.fit(Batches(table, 4, shuffle=True, seed=1))
    after = {v.name for v in app.model.weights if not np.array_equal(v, before[v.name])}
    probes = {v.name for v in app.model.teacher_probes.weights}
    assert moved["probes"] == probes and not after & probes
    assert {v.name for v in app.model.search_weights.weights} <= after
    parts = app.optimizers()
    ids = [{id(v) for v in part.variables} for part in parts.values()]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == len(app.model.trainable_variables)
    assert parts["architecture"].settings == {"learning_rate": 1e-4, "weight_decay_ratio": 1e-3}


def test_each_stream_trains_its_own(learner):
    """Labels of one half of the rows decide the weights, those of the other half the architecture."""
    app, table = learner.app, learner.table
    batch = batch_of(table)
    stream = table.columns["search_stream"]

    class Recorder:
        stage, stage_number, draws = "search", tf.constant(0, tf.int64), RowDraws(tf.constant([1, 2]), tf.constant(4))

        def __init__(self) -> None:
            self.found = {}

        def objective(self, losses, name="default"):
            return tf.add_n([total for total, _ in losses.values()])

        def variables(self, name="default"):
            return app.optimizers()[name].variables

        def update(self, gradients, name="default"):
            given = [g for g in gradients if g is not None]
            self.found[name] = np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in given])

    def gradients(labels: np.ndarray) -> dict[str, np.ndarray]:
        recorder = Recorder()
        recorder.draws = RowDraws(tf.constant([1, 2]), tf.constant(4))
        app.train_step(recorder, {**batch, "label_id": tf.constant(labels)})
        return recorder.found

    plain = gradients(np.array([0, 0, 0, 0], np.int32))
    for own, name, other in ((0, "default", "architecture"), (1, "architecture", "default")):
        changed = gradients(np.where(stream == own, 1, 0).astype(np.int32))
        np.testing.assert_array_equal(changed[other], plain[other])
        assert not np.allclose(changed[name], plain[name])


def test_start_vectors(tiny, tmp_path, tiny_model):
    plain = searching(tiny)
    plain.build_model()
    encoder = plain.encoder.backbone(None, ONE_WORKER)
    np.testing.assert_array_equal(plain.model.words.embeddings, encoder.input_embeddings)
    count = plain.encoder.config.vocab_size
    files = [tmp_path / "words.npy", tmp_path / "places.npy"]
    for file, rows in zip(files, (count, 20), strict=True):
        np.save(file, np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32))
    app = searching({**tiny, "emb_pathes": ",".join(map(str, files))})
    app.build_model()
    np.testing.assert_array_equal(app.model.words.embeddings, np.load(files[0]))
    np.testing.assert_array_equal(app.model.positions.embeddings, np.load(files[1])[:12])
    np.save(files[1], np.zeros((4, 5), np.float32))
    with pytest.raises(ConfigError, match=r"the position vectors do not fit; got \[4, 5\]"):
        searching({**tiny, "emb_pathes": ",".join(map(str, files))}).build_model()
    np.save(files[0], np.array(["a"]))
    with pytest.raises(ConfigError, match="is no table of vectors"):
        searching({**tiny, "emb_pathes": str(files[0])}).build_model()
    with pytest.raises(ConfigError, match="emb_pathes: cannot read gone.npy"):
        searching({**tiny, "emb_pathes": "gone.npy"}).build_model()
    wide = searching({**tiny, "from_scratch": True, "embedding_size": 3})
    assert wide.build_model().words.embeddings.shape[1] == 3


def test_a_pair_gives_each_text_to_one_input():
    model = AdaBertModel((9, 8, 4, 6), 1, Architecture(1, (((0, "identity"),),) * 3), 2, True, 0.0)
    ids = tf.constant([[2, 5, 3, 6, 3]])
    batch = {"input_ids": ids, "input_mask": tf.ones_like(ids), "segment_ids": tf.constant([[0, 0, 0, 1, 1]])}
    before = model(batch)["logits"].numpy()
    other = {**batch, "input_ids": tf.constant([[2, 5, 3, 8, 3]])}
    # All nodes look at the first input alone.
    np.testing.assert_array_equal(model(other)["logits"].numpy(), before)
    assert not np.array_equal(model({**batch, "input_ids": tf.constant([[2, 7, 3, 6, 3]])})["logits"], before)


def test_settings_that_do_not_fit_are_refused(tiny, teacher):
    with pytest.raises(ConfigError, match="distillation.kd_weight=0.8 needs a teacher"):
        searching(tiny, distillation={"kd_weight": 0.8})
    for section, given, message in (
        ("model", {"is_pair_task": True}, "model.is_pair_task=true and secondSequence is not given"),
        ("model", {"embedding_size": 8}, "set model.from_scratch=true"),
        ("model", {"emb_pathes": "a,b,c"}, "one or two files"),
        ("distillation", {"kd_weight": 0, "teacher": "x"}, "kd_weight=0 does not use it"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaBertConfig.model_validate({"model_name": "adabert", section: given})
    defaults = AdaBertConfig().train
    assert (defaults.learning_rate, defaults.weight_decay_ratio, defaults.clip_norm_value) == (5e-4, 3e-4, 5.0)
    assert len(LABELS) == 3 and len(ROWS) == 4
