"""Transfer between domains: tables and streams, losses and schedules against NumPy, what each algorithm learns from."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from training import without_export

from appzoo import jobs
from appzoo.domain_transfer.app import DomainTransfer
from appzoo.domain_transfer.config import DomainTransferConfig, TransferSettings
from appzoo.domain_transfer.losses import covariance, domain_rows, importance, relation, reversed_gradient, rising
from appzoo.domain_transfer.sampler import Stream, StreamSampler
from appzoo.jobs.tables import load_rows
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ConfigError, DataError, Interrupted
from easytransfer.run.report import RunReporter
from easytransfer.train.step import EVALUATION, Loss

TABLES = {
    "films.tsv": [("a good film of the day", "pos"), ("a bad film", "neg"), ("not good", "neg")],
    "books.tsv": [("the book is very good", "pos"), ("our book was bad", "neg")],
    "shop.tsv": [("good day", "pos"), ("bad time here", "neg"), ("we have a good time", "")],
    "more.tsv": [("very very good", ""), ("the time of the day", "")],
    "dev.tsv": [("no good time", "neg"), ("a good day for it", "pos")],
}
# Rows of the target come first.
LABEL_ID = [1, 0, -1, -1, -1, 1, 0, 0, 1, 0]
DOMAIN = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


@pytest.fixture
def tables(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, rows in TABLES.items():
        Path(name).write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return tmp_path


def new_app(tiny_model: Path, algorithm: str, train: dict[str, Any] | None = None, **data: Any) -> DomainTransfer:
    data = {
        "train_table": "shop.tsv,more.tsv", "source_table": "films.tsv,books.tsv", "eval_table": "dev.tsv",
        "input_schema": "text:str:1,label:str:1", "first_sequence": "text", "label_name": "label",
        "label_enumerate_values": "neg,pos", "sequence_length": 12, **data,
    }  # fmt: skip
    model = {"pretrain_model_name_or_path": str(tiny_model), "dropout_rate": 0.0}
    config = {"data": data, "model": model, "train": train or {}, "transfer": {"algorithm": algorithm}}
    return DomainTransfer(DomainTransferConfig.model_validate({"model_name": "domain_transfer", **config}))


def prepared(tiny_model: Path, algorithm: str, **options: Any):
    """An application with its model and its encoded training table."""
    app = new_app(tiny_model, algorithm, **options)
    app.load_assets(None)
    table = load_rows(app, app.config.training_tables(), True).encoded
    app.on_train_table(table)
    app.build_model()
    return app, table


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


# Tables ------------------------------------------------------------------------------------------------------


def test_rows_are_of_the_domain_of_their_file_and_only_the_target_has_unlabelled_ones(tables, tiny_model, capfd):
    app = new_app(tiny_model, "dann")
    app.load_assets(None)
    rows = load_rows(app, app.config.training_tables(), True)
    assert rows.encoded.columns["label_id"].tolist() == LABEL_ID
    assert rows.encoded.columns["domain"].tolist() == DOMAIN
    app.on_train_table(rows.encoded)
    assert "training rows: 5 of source domains, 2 labelled and 3 unlabelled of the target" in capfd.readouterr().err
    held = load_rows(app, "dev.tsv", True).encoded
    assert held.columns["domain"].tolist() == [1, 1]
    for name in ("films.tsv", "dev.tsv"):
        Path(name).write_text("a good film\tpos\nno label\t\n")
        with pytest.raises(DataError, match=f"{name}:2: column 'label': empty label"):
            load_rows(app, name, True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source_table": "shop.tsv"}, "a table is in sourceTable and in trainTable; got 'shop.tsv'"),
        ({"eval_table": "more.tsv"}, "a table is in trainTable and in evalTable; got 'more.tsv'"),
        ({"eval_table": "books.tsv"}, "a table is in sourceTable and in evalTable; got 'books.tsv'"),
        ({"label_enumerate_values": "none"}, "domain transfer needs a task with one class per row"),
        ({"input_schema": "input_ids:int:4,label_id:int:1"}, "token ids do not say of which domain a row is"),
    ],
)
def test_tables_that_leave_the_domain_open_are_refused(data, message, tables, tiny_model):
    with pytest.raises(ConfigError, match=message):
        new_app(tiny_model, "dann", **data).load_assets(None)


def test_a_target_without_rows_is_told_in_place_of_its_sources(tables, tiny_model):
    for name in ("shop.tsv", "more.tsv"):
        Path(name).write_text("")
    app = new_app(tiny_model, "dann")
    app.load_assets(None)
    with pytest.raises(DataError, match="training table shop.tsv,more.tsv is empty: it has no row of the target"):
        app.on_train_table(load_rows(app, app.config.training_tables(), True).encoded)


def test_class_weights_are_of_rows_with_labels(tables, tiny_model):
    app, table = prepared(tiny_model, "joint", train={"class_weights": "balanced"})
    np.testing.assert_allclose(app.target.class_weights, [7 / (2 * 4), 7 / (2 * 3)], rtol=1e-6)
    batch = {name: tf.constant(value) for name, value in table.batch(range(10), size=11).items()}
    assert float(app.target.loss_weight(batch)) == pytest.approx(7.0)


# Streams -----------------------------------------------------------------------------------------------------


def streams_of(app, table) -> dict[str, list[int]]:
    return {stream.name: stream.rows.tolist() for stream in app.sampler(table).streams}


@pytest.mark.parametrize(
    ("algorithm", "names"),
    [
        ("source_only", ["source"]),
        ("target_only", ["target"]),
        ("joint", ["source", "target"]),
        ("dann", ["source", "target", "unlabelled"]),
        ("reweight", ["source", "target", "unlabelled"]),
        ("drss", ["source", "target", "unlabelled"]),
    ],
)
def test_every_algorithm_has_its_rows(algorithm, names, tables, tiny_model):
    rows = {"source": [5, 6, 7, 8, 9], "target": [0, 1], "unlabelled": [2, 3, 4]}
    app = new_app(tiny_model, algorithm)
    app.load_assets(None)
    table = load_rows(app, app.config.training_tables(), True).encoded
    assert streams_of(app, table) == {name: rows[name] for name in names}


@pytest.mark.parametrize("algorithm", ["rtl", "mgtl"])
def test_labelled_rows_are_held_back_for_the_reward(algorithm, tables, tiny_model, tmp_path):
    lines = [f"good day {i}\tpos\n" if i % 2 else f"bad time {i}\tneg\n" for i in range(20)]
    Path("shop.tsv").write_text("".join(lines) + "a film\t\n")
    app = new_app(tiny_model, algorithm)
    app.load_assets(None)
    table = load_rows(app, app.config.training_tables(), True).encoded
    app.before_training(table, tmp_path, ONE_WORKER)
    held, found = np.flatnonzero(table.columns["held"]).tolist(), streams_of(app, table)
    assert len(held) == 10 and found["held"] == held and max(held) < 20
    assert sorted([*found["target"], *held]) == list(range(20))
    assert found.keys() == {"source", "target", "held", *(["unlabelled"] if algorithm == "mgtl" else [])}
    again = load_rows(app, app.config.training_tables(), True).encoded
    app.before_training(again, tmp_path, ONE_WORKER)
    np.testing.assert_array_equal(again.columns["held"], table.columns["held"])
    Path("shop.tsv").write_text("good day\tpos\n")
    few = load_rows(app, app.config.training_tables(), True).encoded
    with pytest.raises(ConfigError, match="measures its reward on the other, and trainTable has 1 of them"):
        app.before_training(few, tmp_path, ONE_WORKER)


def test_shares_leave_a_place_for_source_rows():
    shares = {"target_share": 0.4, "held_share": 0.4, "unlabelled_share": 0.3}
    assert TransferSettings(algorithm="dann", **shares).streams == {"source": 1, "target": 0.4, "unlabelled": 0.3}
    assert TransferSettings(algorithm="rtl", **shares).streams == {"source": 1, "target": 0.4, "held": 0.4}
    with pytest.raises(ValueError, match="transfer.target_share, transfer.held_share, transfer.unlabelled_share leave"):
        TransferSettings(algorithm="mgtl", **shares)


@pytest.mark.parametrize(
    ("algorithm", "data", "message"),
    [
        ("joint", {"train_table": "more.tsv"}, "algorithm=joint needs labelled rows of the target domain"),
        ("dann", {"source_table": None}, "algorithm=dann needs rows of source domains.*give --sourceTable"),
    ],
)
def test_an_algorithm_without_its_rows_is_refused(algorithm, data, message, tables, tiny_model):
    app = new_app(tiny_model, algorithm, **data)
    app.load_assets(None)
    with pytest.raises(ConfigError, match=message):
        app.sampler(load_rows(app, app.config.training_tables(), True).encoded)


def test_streams_share_every_batch_and_every_source_row_comes():
    streams = [
        Stream("source", np.arange(100, 121), 1.0),
        Stream("labelled", np.arange(5), 0.25),
        Stream("unlabelled", np.arange(50, 57), 0.25),
    ]
    sampler = StreamSampler(streams, seed=3)
    assert sampler.steps(16, 2) == 3
    turns = []
    for epoch in (0, 1):
        plan = sampler.plan(epoch, 16, 2)
        assert [len(rows) for rows in plan] == [16] * 3
        for rows in plan:
            for worker in range(2):
                own = rows[worker::2]
                assert [int(np.isin(own, stream.rows).sum()) for stream in streams] == [4, 2, 2]
        every = np.concatenate(plan)
        assert {*every[every >= 100]} == {*range(100, 121)}
        turns += every[every < 50].tolist()
    # Labelled rows take turns: after 24 of them none is more than one turn ahead.
    assert set(np.bincount(turns)) == {4, 5}
    again = StreamSampler(streams, seed=3).plan(1, 16, 2)
    np.testing.assert_array_equal(again, sampler.plan(1, 16, 2))
    assert not np.array_equal(sampler.plan(0, 16, 2), again)
    with pytest.raises(ConfigError, match="no place for source and labelled and unlabelled rows"):
        sampler.steps(2, 1)
    with pytest.raises(ConfigError, match="the training tables have no spare row"):
        StreamSampler([Stream("spare", np.arange(0), 1.0)], seed=0)


# Losses ------------------------------------------------------------------------------------------------------


def test_reversal_and_its_rise():
    x = tf.constant([[0.5, -2.0], [1.0, 3.0]])

    def value(z, factor=0.3):
        return tf.reduce_sum(tf.sin(reversed_gradient(z, tf.constant(factor))))

    with tf.GradientTape() as tape:
        tape.watch(x)
        result = value(x)
    assert float(result) == pytest.approx(np.sin(x.numpy()).sum(), rel=1e-6)
    # Finite differences of the value itself, times -0.3.
    numeric, small = np.zeros((2, 2)), 1e-3
    for place in np.ndindex(2, 2):
        shift = np.zeros((2, 2), np.float32)
        shift[place] = small
        numeric[place] = float(value(x + shift) - value(x - shift)) / (2 * small)
    np.testing.assert_allclose(tape.gradient(result, x), -0.3 * numeric, atol=1e-3)
    progress = np.array([0, 0.1, 0.5, 1.0])
    np.testing.assert_allclose(rising(tf.constant(progress)), 2 / (1 + np.exp(-10 * progress)) - 1, rtol=1e-5)
    assert float(rising(tf.constant(0.0))) == 0


def test_domain_losses_and_weights_are_those_of_numpy():
    logits = np.float32([-1.5, 0.2, 3.0, 0.7, 90.0])
    d, target = 1 / (1 + np.exp(-logits.astype(float))), np.array([0, 0, 0, 1, 1])
    expected = -np.log(np.where(target, d, 1 - d))
    np.testing.assert_allclose(domain_rows(logits, target), expected, rtol=1e-5, atol=1e-7)
    source = 1.0 - target
    ratio = np.minimum(d[:3] / (1 - d[:3]), 10)
    found = importance(logits, source, 10.0)
    np.testing.assert_allclose(found, [*ratio / ratio.mean(), 1, 1], rtol=1e-5)
    np.testing.assert_allclose(importance(logits, np.zeros(5), 10.0), np.ones(5))


def test_the_covariance_is_the_best_one_and_its_loss_that_of_numpy():
    random = np.random.default_rng(8)
    w = random.normal(0, 1, (12, 4))
    w[:, 3] = w[:, 0] + 0.1 * w[:, 3]
    values, vectors = np.linalg.eigh(w.T @ w)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    omega = root / np.trace(root)
    found = covariance(tf.constant(w, tf.float32)).numpy()
    np.testing.assert_allclose(found, omega, atol=1e-5)
    assert np.trace(found) == pytest.approx(1, abs=1e-5) and found[0, 3] > 5 * abs(found[0, 1])

    def value(of: np.ndarray) -> float:
        return np.trace(w @ np.linalg.inv(of) @ w.T)

    variable = tf.Variable(w, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = relation(variable)
    assert float(loss) == pytest.approx(value(omega), rel=1e-4)
    for _ in range(20):
        part = random.normal(0, 1, (4, 6))
        other = part @ part.T / np.trace(part @ part.T)
        assert value(omega) <= value(other) and value(omega) <= value(0.9 * omega + 0.1 * other)
    np.testing.assert_allclose(tape.gradient(loss, variable), 2 * w @ np.linalg.inv(omega), rtol=1e-3, atol=1e-3)
    assert np.isfinite(relation(tf.zeros([5, 4])).numpy())


def values(losses: dict[str, Loss]) -> dict[str, float]:
    return {name: float(total / weight) for name, (total, weight) in losses.items()}


def batch_of(table, size: int = 12) -> dict[str, tf.Tensor]:
    """All rows, and some that only fill the batch."""
    return {name: tf.constant(value) for name, value in table.batch(range(10), size=size).items()}


def at(progress: float) -> SimpleNamespace:
    return SimpleNamespace(number=tf.constant(int(progress * 1000), tf.int64), total=1000, draws=None, training=True)


def drawn(*layers) -> None:
    """Gives layers weights that tell rows apart."""
    random = np.random.default_rng(4)
    for variable in (variable for layer in layers for variable in layer.variables):
        variable.assign(random.normal(0, 0.5, variable.shape))


def two_layers(network, h: np.ndarray) -> np.ndarray:
    a, b, c, e = (variable.numpy() for variable in network.variables)
    return (np.maximum(h @ a + b, 0) @ c + e)[:, 0]


@pytest.mark.parametrize("algorithm", ["joint", "dann", "reweight"])
def test_losses_of_a_batch_are_those_of_numpy(algorithm, tables, tiny_model):
    app, table = prepared(tiny_model, algorithm)
    drawn(app.model.head, *([] if algorithm == "joint" else [app.model.discriminator]))
    batch = batch_of(table)
    features = app.model.features(batch)
    h, label, domain = features.numpy()[:10].astype(float), np.array(LABEL_ID), np.array(DOMAIN)
    p = softmax(h @ app.model.head.kernel.numpy() + app.model.head.bias.numpy())
    ce = np.where(label >= 0, -np.log(p[np.arange(10), label]), 0)
    weights, expected = np.ones(10), {}
    if algorithm != "joint":
        d = 1 / (1 + np.exp(-two_layers(app.model.discriminator, h)))
        expected["domain_loss"] = -np.log(np.where(domain, d, 1 - d)).mean()
        if algorithm == "reweight":
            ratio = np.minimum(d / (1 - d), 10)
            weights = np.where(domain, 1, ratio / ratio[domain == 0].mean())
    expected["loss"] = (ce * weights).sum() / 7
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        found = app.training_losses(batch, features, at(0.5))
        parts = {name: total / weight for name, (total, weight) in found.items()}
    assert values(found) == pytest.approx(expected, rel=1e-5)
    if algorithm == "joint":
        return
    # The encoder learns the domains backwards, or not at all.
    gradient = tape.gradient(parts["domain_loss"], features)
    if algorithm == "reweight":
        assert gradient is None
        return
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = app.model.discriminator(features)
        plain = tf.reduce_sum(domain_rows(logits, batch["domain"]) * batch["example_weight"]) / 10
    rise = 2 / (1 + np.exp(-5)) - 1
    np.testing.assert_allclose(gradient, -rise * tape.gradient(plain, features).numpy(), rtol=1e-4, atol=1e-8)


def test_losses_of_shared_and_specific_features_are_those_of_numpy(tables, tiny_model):
    app, table = prepared(tiny_model, "drss")
    head = app.model.head
    kernels = [layer.kernel.numpy() for layer in (head.shared, *head.specific)]
    assert not any(np.array_equal(kernels[i], kernels[j]) for i, j in ((0, 1), (0, 2), (1, 2))), "each starts elsewhere"
    drawn(head, app.model.discriminator)
    batch = batch_of(table)
    features = app.model.features(batch)
    h, label, domain = features.numpy()[:10].astype(float), np.array(LABEL_ID), np.array(DOMAIN)
    layers = [layer.get_weights() for layer in (head.shared, *head.specific)]
    shared, *own = (np.tanh(h @ kernel + bias) for kernel, bias in layers)
    k, b = head.kernel.numpy(), head.bias.numpy()
    z = [shared @ k[i, 0] + own[i] @ k[i, 1] + b[i] for i in (0, 1)]
    ce = [-np.log(softmax(each)[np.arange(10), label]) for each in z]
    d = 1 / (1 + np.exp(-two_layers(app.model.discriminator, shared)))
    w = k.reshape(4, -1).T
    expected = {
        "source_loss": ce[0][domain == 0].mean(),
        "target_loss": ce[1][(domain == 1) & (label >= 0)].mean(),
        "relation_loss": 0.01 * np.linalg.svd(w, compute_uv=False).sum() ** 2,
        "domain_loss": -np.log(np.where(domain, d, 1 - d)).mean(),
    }
    found = values(app.training_losses(batch, features, at(0.5)))
    assert found == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(app.forward(batch)["logits"][:10], z[1], atol=1e-4)


def test_what_only_the_training_needs_is_in_no_prediction_and_in_no_evaluation(tables, tiny_model):
    app, table = prepared(tiny_model, "dann")
    batch = batch_of(table)
    assert app.forward(batch).keys() == {"logits"}
    assert app.losses(batch, app.forward(batch), EVALUATION).keys() == {"loss"}
    assert app.model_inputs(table.batch([0])).keys() == {"input_ids", "input_mask", "segment_ids"}
    call = tf.function(app.predict_step).get_concrete_function(app.specs())
    used = {variable.name for variable in call.variables}
    assert used and not any("discriminator" in name for name in used)
    parts = app.optimizers()
    assert {v.name.split("/")[0] for v in parts["domain"].variables} == {"discriminator"}
    assert sum(len(part.variables) for part in parts.values()) == len(app.model.trainable_variables)


@pytest.mark.slow  # the contract of all applications shows it at less length
def test_a_training_goes_on_where_it_was_stopped(tables, tiny_model, monkeypatch):
    def run(folder: str) -> dict[str, np.ndarray]:
        train = {"batch_size": 8, "num_epochs": 2, "learning_rate": 1e-3, "log_step_count_steps": 1}
        app = new_app(tiny_model, "mgtl", train=train)
        values = app.config.model_dump() | {"checkpoint_dir": folder, "runtime": {"deterministic": True}}
        jobs.train(DomainTransferConfig.model_validate(values))
        last = json.loads(Path(folder, "checkpoint.json").read_text())["last"]
        return load_file(Path(folder, last, "weights.safetensors"))

    def stopping(self, step, metrics):
        plain(self, step, metrics)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    plain = RunReporter.step
    with without_export():
        whole = run("whole")
        monkeypatch.setattr(RunReporter, "step", stopping)
        with pytest.raises(Interrupted):
            run("parts")
        monkeypatch.setattr(RunReporter, "step", plain)
        parts = run("parts")
    assert any("policy" in name for name in whole)
    assert [name for name in whole if not np.array_equal(whole[name], parts[name])] == []
