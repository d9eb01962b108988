"""Meta fine-tuning: typicality and corrupted domains against NumPy, domains of rows, and the fine-tuning behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tiny_text_distillation import batch_of, softmax

from appzoo.discovery import find_application
from appzoo.domain_label import DomainEvaluator
from appzoo.meta_finetune.app import MetaFinetune
from appzoo.text_classify.app import BertClassify
from appzoo.typicality import typicality
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.train.step import EVALUATION
from easytransfer.train.trainer import Trainer

ROWS = [
    *[("the good book is here", "good", "books"), ("bad", "bad", "books"), ("a bad book of the day", "bad", "books")],
    *[("no good time for it", "good", "films"), ("the film is bad", "bad", "films"), ("good", "good", "shops")],
]


def new_app(model: dict[str, Any], name: str = "meta_finetune", rows=ROWS, **sections: Any):
    config_class, app_class = find_application(name)
    data = {"first_sequence": "text", "label_name": "label", "label_enumerate_values": "bad,good"}
    data |= {"sequence_length": 12, **sections.pop("data", {})}
    app = app_class(config_class.model_validate({"model_name": name, "model": model, "data": data, **sections}))
    app.load_assets(None, lambda column: [row[("text", "label", "domain").index(column)] for row in rows])
    return app


def encoded(app, folder, rows=ROWS, bad: BadRows | None = None) -> EncodedTable:
    path = folder / "table.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    schema = parse_schema("text:str:1,label:str:1,domain:str:1")
    (chunk,) = open_table(str(path), schema=schema, data=app.config.data, bad_rows=bad or BadRows("fail")).chunks()
    return app.encode(chunk, with_labels=True)


@pytest.fixture(scope="module")
def tiny(tiny_model) -> dict[str, Any]:
    return {"pretrain_model_name_or_path": str(tiny_model)}


@pytest.fixture(scope="module")
def learner(tiny, tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("meta")
    app: MetaFinetune = new_app({**tiny, "domain_layers": [1, 2], "domain_weight": 0.5})
    table = encoded(app, folder)
    app.on_train_table(table)
    app.before_training(table, folder, ONE_WORKER)
    app.build_model()
    random = np.random.default_rng(3)
    app.model.set_weights([w + random.normal(0, 0.1, w.shape).astype(np.float32) for w in app.model.get_weights()])
    return SimpleNamespace(app=app, table=table, folder=folder)


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_typicality_is_that_of_numpy():
    random = np.random.default_rng(1)
    h = random.normal(1.0, 1.0, (40, 5)).astype(np.float32)
    y, d = random.integers(0, 2, 40), random.integers(0, 3, 40)
    # Class 2 is in domain 1 alone.
    y[:3], d[:3] = 2, 1
    found, expected = typicality(h, y, d), []
    for i in range(40):
        own = h[(d == d[i]) & (y == y[i])].mean(axis=0)
        others = [h[(d == k) & (y == y[i])].mean(axis=0) for k in set(d) - {d[i]} if ((d == k) & (y == y[i])).any()]
        values = [cosine(h[i], own)] + ([cosine(h[i], np.mean(others, axis=0))] if others else [])
        expected.append(max(np.mean(values), 0))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    # By hand: a row along its class, one across both domains' centroids, and one against them.
    rows = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    first, _, third, fourth = typicality(rows, np.zeros(4, int), np.array([0, 0, 1, 1]))
    assert first == pytest.approx((1 + np.sqrt(0.5)) / 2) and third == pytest.approx((np.sqrt(0.5) + 1) / 2)
    assert fourth == pytest.approx(np.sqrt(0.5) / 2)
    assert typicality(np.array([[-1, 0], [2, 0]], np.float32), np.zeros(2, int), np.zeros(2, int))[0] == 0


def test_typicality_is_of_the_encoder_before_training_and_the_same_when_it_is_read_again(learner, tiny):
    app, table = learner.app, learner.table
    plain = new_app(tiny)
    plain.build_model()
    states = plain.model.backbone(batch_of(table))["hidden_states"][-1].numpy()
    mask = table.batch(range(6))["input_mask"][:, :, None]
    mean = (states * mask).sum(axis=1) / mask.sum(axis=1)
    expected = typicality(mean, table.columns["label_id"], table.columns["domain_id"])
    np.testing.assert_allclose(table.columns["typicality"], expected, atol=1e-5)
    again = encoded(app, learner.folder)
    (file,) = (learner.folder / "cache").rglob("*.npy")
    before = file.stat().st_mtime_ns
    app.before_training(again, learner.folder, ONE_WORKER)
    np.testing.assert_array_equal(again.columns["typicality"], table.columns["typicality"])
    assert file.stat().st_mtime_ns == before


def test_the_losses_are_those_of_numpy(learner):
    app, table = learner.app, learner.table
    # Rows 7 and 8 only fill the batch.
    batch = batch_of(table, size=8)
    weights, labels = batch["typicality"].numpy()[:6], table.columns["label_id"]
    batch = app.training_batch(batch, RowDraws(tf.constant([1, 2]), tf.constant(8)))
    outputs = app.forward(batch)
    found = {name: float(total / weight) for name, (total, weight) in app.losses(batch, outputs, EVALUATION).items()}
    cross = -np.log(softmax(outputs["logits"].numpy()[:6]))[np.arange(6), labels]
    states = app.model.with_states(batch)["hidden_states"].numpy()
    mask = batch["input_mask"].numpy()[:6, :, None]
    part, domain = app.model.domain_classifiers, batch["domain_id"].numpy()[:6]
    corrupted = batch["corrupted_domain"].numpy()[:6]
    assert corrupted.shape == (6, 3) and (corrupted.sum(axis=1) == 1).all()

    def domain_loss(wanted: np.ndarray) -> float:
        total = 0.0
        for number, layer in enumerate((1, 2)):
            mean = (states[:6, layer] * mask).sum(axis=1) / mask.sum(axis=1) + part.embeddings.numpy()[domain]
            logits = mean @ part.kernel.numpy()[number] + part.bias.numpy()[number]
            total += -(wanted * np.log(softmax(logits))).sum(axis=1).mean() / 2
        return 0.5 * total

    expected = {"ce_loss": (weights * cross).mean(), "domain_loss": domain_loss(corrupted)}
    assert found == pytest.approx(expected, rel=1e-5)
    # Outside of the training: rows alike, and every domain with its share.
    plain = batch_of(encoded(app, learner.folder), size=8)
    losses = app.losses(plain, app.forward(plain), EVALUATION)
    shares = np.array([3, 2, 1]) / 6
    assert {n: float(s / w) for n, (s, w) in losses.items()} == pytest.approx(
        {"ce_loss": cross.mean(), "domain_loss": domain_loss(np.tile(shares, (6, 1)))}, rel=1e-5
    )


def test_corrupted_domains_are_drawn_as_they_are_frequent(learner):
    count = 20_000
    batch = {"input_ids": tf.ones([count, 1], tf.int32)}
    drawn = learner.app.training_batch(batch, RowDraws(tf.constant([5, 6]), tf.constant(count)))["corrupted_domain"]
    # Three standard deviations of a share of a half.
    np.testing.assert_allclose(drawn.numpy().mean(axis=0), [3 / 6, 2 / 6, 1 / 6], atol=3 * 0.5 / np.sqrt(count))


def test_layers_that_domains_are_told_from(tiny, learner):
    assert learner.app._domain_layers() == [1, 2] and new_app(tiny)._domain_layers() == [1, 2]
    app = new_app(tiny)
    app.encoder.config = SimpleNamespace(num_hidden_layers=12)
    assert app._domain_layers() == [3, 6, 9, 12]
    none = new_app({**tiny, "domain_weight": 0})
    assert none.build_model().domain_classifiers is None
    for given in ([3], [1, 1]):
        with pytest.raises(ConfigError, match="model.domain_layers names a layer twice, or .* from 1 to 2"):
            new_app({**tiny, "domain_layers": given}).build_model()


def test_domains_are_those_of_the_training_table(tiny, tmp_path, learner):
    app = new_app(tiny)
    assert app.target.domains.names == ["books", "films", "shops"]
    assert encoded(app, tmp_path).columns["domain_id"].tolist() == [0, 0, 0, 1, 1, 2]
    with pytest.raises(DataError, match="unknown domain: 'cars'; known: books, films, shops"):
        encoded(app, tmp_path, [*ROWS, ("good", "good", "cars")])
    with pytest.raises(ConfigError, match="the column 'domain' has fewer than two domains; got 'books'"):
        new_app(tiny, rows=ROWS[:3])
    with pytest.raises(ConfigError, match="needs a task with one class per row"):
        new_app(tiny, data={"label_enumerate_values": "none"})
    # What predicts reads no domain, and what is stored is enough to measure.
    assert learner.app.model_inputs(learner.table.batch([0, 1])).keys() >= {"input_ids"}
    learner.app.save_assets(tmp_path)
    assert {"domain_mapping.json"} <= set(learner.app.exported_files)
    again = MetaFinetune(learner.app.config)
    again.load_assets(tmp_path)
    assert again.target.domains.names == app.target.domains.names
    (tmp_path / "domain_mapping.json").unlink()
    with pytest.raises(ModelError, match="has no domain_mapping.json"):
        MetaFinetune(learner.app.config).load_assets(tmp_path)


def test_accuracy_of_domains():
    logits = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    batch = {"label_id": np.array([0, 1, 1, 0]), "domain_id": np.array([0, 0, 2, 2])}
    whole, parts = DomainEvaluator(["a", "b"], ["x", "y", "z"]), DomainEvaluator(["a", "b"], ["x", "y", "z"])
    whole.update(batch, {"logits": logits})
    for rows in (slice(0, 3), slice(3, 4)):
        part = DomainEvaluator(["a", "b"], ["x", "y", "z"])
        part.update({name: value[rows] for name, value in batch.items()}, {"logits": logits[rows]})
        parts.merge(part.state())
    for found in (whole, parts):
        result = found.result()
        names = ("accuracy", "mean_domain_accuracy", "worst_domain_accuracy")
        assert [result[name] for name in names] == [0.75, 0.75, 0.5]
        assert found.report()["per_domain"] == [
            {"domain": "x", "rows": 2, "accuracy": 1.0},
            {"domain": "z", "rows": 2, "accuracy": 0.5},
        ]
    assert np.isnan(DomainEvaluator(["a", "b"], ["x", "y"]).result()["mean_domain_accuracy"])


def test_an_ordinary_training_starts_with_its_weights(learner, tiny, tmp_path):
    """All but the classifiers of domains, which only this training needs."""
    app, table = learner.app, learner.table
    train = {"num_epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    settings = app.config.train.model_copy(update=train)
    Trainer(app, settings, app.config.runtime, tmp_path / "meta").fit(Batches(table, 4, shuffle=True, seed=1))
    path = str(tmp_path / "meta")
    plain: BertClassify = new_app(tiny, "text_classify_bert", train={"init_checkpoint_path": path, **train})
    plain.config.train.learning_rate = 1e-12
    rows = EncodedTable({n: c for n, c in table.columns.items() if n not in ("domain_id", "typicality")}, table.masks)
    Trainer(plain, plain.config.train, plain.config.runtime).fit(Batches(rows, 4, shuffle=True, seed=1))
    extra = {id(v) for v in app.model.domain_classifiers.weights}
    kept = [weight for weight in app.model.weights if id(weight) not in extra]
    assert len(extra) == 3 and len(kept) == len(plain.model.weights)
    for ours, theirs in zip(plain.model.weights, kept, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    specs = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in app.specs().items()}
    used = tf.function(app.predict_step).get_concrete_function(specs).variables
    assert not extra & {id(variable) for variable in used}
