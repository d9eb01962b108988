"""Meta-distillation: weights and losses of every stage against NumPy, meta-teachers of other runs, one domain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_meta_finetune import ROWS, encoded, new_app
from tiny_text_distillation import batch_of, softmax
from training import StopAt

from appzoo.meta_distillation.app import MetaDistillation
from appzoo.meta_distillation.config import MetaDistillationConfig
from appzoo.meta_distillation.losses import attention_rows, expertise, hidden_rows, transfer_rows
from appzoo.meta_distillation.sampler import RowSampler
from appzoo.meta_distillation.target import MetaEvaluator
from appzoo.typicality import typicality
from easytransfer.data.batches import Batches
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ConfigError, Interrupted, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.train import checkpoint
from easytransfer.train.step import EVALUATION
from easytransfer.train.trainer import Trainer
from easytransfer.train.weights import named_arrays, variable_names
from modelzoo.backbone import Backbone
from modelzoo.commands import make_tiny

NAME = "meta_distillation"
SMALL = {"from_scratch": True, "num_layers": 1, "hidden_size": 8, "num_heads": 2, "intermediate_size": 8}
SETTINGS = {"domain_weight": 0.7, "hidden_weight": 0.5, "attention_weight": 2.0, "transfer_weight": 0.3}
SETTINGS |= {"kd_temperature": 3.0}


@pytest.fixture(scope="module")
def tiny(tiny_model) -> dict[str, Any]:
    return {"pretrain_model_name_or_path": str(tiny_model)}


def save_run(folder: Path, app) -> Path:
    """Writes the run folder of an application with the weights that it has."""
    folder.mkdir(parents=True)
    app.save_assets(folder)
    write_json(folder / CONFIG_FILE, app.config.model_dump(mode="json"))
    checkpoint.save(folder, 5, named_arrays(app.model.weights), {}, {})
    checkpoint.point(folder, 5, 5)
    return folder


@pytest.fixture(scope="module")
def learner(tiny, tmp_path_factory) -> SimpleNamespace:
    """A narrow student of one layer and its meta-teacher of two, with a batch whose last two rows only fill it."""
    folder = tmp_path_factory.mktemp("meta")
    app: MetaDistillation = new_app({**tiny, **SMALL}, NAME, distillation=SETTINGS)
    table = encoded(app, folder)
    app.on_train_table(table)
    app.before_training(table, folder, ONE_WORKER)
    app.build_model()
    random = np.random.default_rng(3)
    for variable in app.model.trainable_variables:
        variable.assign_add(random.normal(0, 0.2, variable.shape).astype(np.float32))
    batch = app.training_batch(batch_of(table, size=8), RowDraws(tf.constant([1, 2]), tf.constant(8)))
    return SimpleNamespace(app=app, table=table, batch=batch, folder=folder)


@pytest.fixture(scope="module")
def run(learner) -> Path:
    return save_run(learner.folder / "run", learner.app)


def losses_of(learner, stage: str | None) -> dict[str, float]:
    app, batch, step = learner.app, learner.batch, SimpleNamespace(stage=stage) if stage else EVALUATION
    taught = {} if stage == "meta_teacher" else app._taught(batch, stage)
    found = app.losses(batch, {**app._learnt(batch, stage, False), **taught}, step)
    return {name: float(total / weight) for name, (total, weight) in found.items()}


def weights_of_rows(learner) -> np.ndarray:
    """(1 + t) / (exp((p - 1)^2) + 1) of the six rows."""
    given = softmax(learner.app.model.teacher(learner.batch)["logits"].numpy())[:6]
    p, t = given[np.arange(6), learner.table.columns["label_id"]], learner.table.columns["typicality"]
    return (1 + t) / (np.exp((p - 1) ** 2) + 1)


# Formulas ----------------------------------------------------------------------------------------------------


def test_expertise_by_hand():
    # Probabilities 1/2 of two equal logits, and nearly 1 of the right and of the wrong class.
    logits = tf.constant([[0.0, 0.0], [0.0, 60.0], [60.0, 0.0]])
    found = expertise(logits, tf.constant([0, 1, 1]), tf.constant([0.0, 1.0, 0.5]))
    np.testing.assert_allclose(found, [1 / (np.exp(0.25) + 1), 1.0, 1.5 / (np.e + 1)], rtol=1e-6)


def test_distances_of_rows_by_hand():
    """Of the second row one token is padding: it counts neither as token nor in pairs."""
    mask = tf.constant([[1, 1], [1, 0]])
    ours = tf.constant([[[1.0, 0.0], [0.0, 2.0]], [[2.0, 2.0], [9.0, 9.0]]])
    # Means over the width (1/2, 2) and (4, -); then of the pair with ones (1/2, 1) and (1, -).
    found = hidden_rows([ours, ours], [tf.zeros_like(ours), tf.ones_like(ours)], mask)
    np.testing.assert_allclose(found, [(0.5 + 2) / 2 + (0.5 + 1) / 2, 4 + 1])
    attention = tf.constant(np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
    # Distances 1 of the first head and 3 of the second: the mean of their squares is 5.
    found = attention_rows([attention, attention], [attention - [[[[1.0]], [[3.0]]]], attention], mask)
    np.testing.assert_allclose(found, [5, 5])
    uneven = attention - tf.constant([[[[0.0, 2.0], [0.0, 0.0]]], [[[0.0, 7.0], [7.0, 7.0]]]])
    np.testing.assert_allclose(attention_rows([attention], [uneven], mask), [1, 0])
    np.testing.assert_allclose(transfer_rows(tf.constant([[1.0, 3.0]]), tf.constant([[0.0, 0.0]])), [5])


def test_representation_of_a_text_and_its_domain(learner):
    batch, mask = learner.batch, learner.batch["input_mask"].numpy()[:, :, None]
    for model in (learner.app.model, learner.app.model.teacher):
        found, part = model.inside(batch, False, False), model.domain_representation
        mean = (found["hidden_states"].numpy()[:, -1] * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        seen = mean + part.embeddings.numpy()[batch["domain_id"].numpy()]
        expected = np.tanh(seen @ part.kernel.numpy() + part.bias.numpy())
        np.testing.assert_allclose(found["domain_representation"], expected, atol=1e-5)
    assert expected.shape[1] == 32


def test_typicality_is_told_by_the_encoder_of_the_meta_teacher(learner, tiny):
    table = learner.table
    backbone = Backbone.from_preset(tiny["pretrain_model_name_or_path"])
    states, mask = backbone(batch_of(table))["hidden_states"][-1].numpy(), table.batch(range(6))["input_mask"]
    mean = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    expected = typicality(mean, table.columns["label_id"], table.columns["domain_id"])
    np.testing.assert_allclose(table.columns["typicality"], expected, atol=1e-5)
    assert (expected < 0.999).any()


# Stages ------------------------------------------------------------------------------------------------------


def test_the_meta_teacher_learns_classes_and_corrupted_domains(learner):
    app, batch, labels = learner.app, learner.batch, learner.table.columns["label_id"]
    t, found = learner.table.columns["typicality"], app.model.teacher.inside(batch, False, False)
    cross = -np.log(softmax(found["logits"].numpy()[:6]))[np.arange(6), labels]
    head = app.model.teacher.domain_head
    logits = found["domain_representation"].numpy() @ head.kernel.numpy() + head.bias.numpy()
    corrupted = batch["corrupted_domain"].numpy()
    assert (corrupted.sum(axis=1) == 1).all()
    domain = -(corrupted * np.log(softmax(logits))).sum(axis=1)[:6]
    expected = {"ce_loss": (t * cross).mean(), "domain_loss": 0.7 * (t * domain).mean()}
    assert losses_of(learner, "meta_teacher") == pytest.approx(expected, rel=1e-5)


def test_the_student_learns_layers_by_the_expertise_of_the_meta_teacher(learner):
    app, batch = learner.app, learner.batch
    assert app.pairs == [(0, 0), (1, 2)] and app.attended == [(1, 2)]
    ours, theirs = (model.inside(batch, False, True) for model in (app.model, app.model.teacher))
    mask, weights = batch["input_mask"].numpy()[:6], weights_of_rows(learner)

    def hidden(i: int, j: int, projection) -> np.ndarray:
        difference = ours["hidden_states"].numpy()[:6, i] @ projection.kernel.numpy() - theirs["hidden_states"][:6, j]
        return ((difference.numpy() ** 2).mean(axis=2) * mask).sum(axis=1) / mask.sum(axis=1)

    pairs = mask[:, :, None] * mask[:, None]
    squares = ((ours["attentions"][:6, 0] - theirs["attentions"][:6, 1]).numpy() ** 2).mean(axis=1)
    attention = (squares * pairs).sum(axis=(1, 2)) / pairs.sum(axis=(1, 2))
    moved = (ours["domain_representation"] - theirs["domain_representation"]).numpy()[:6]
    expected = {
        "embedding_loss": 0.5 * (weights * hidden(0, 0, app.model.embedding_projection)).mean(),
        "hidden_loss": 0.5 * (weights * hidden(1, 2, app.model.hidden_projection)).mean(),
        "attention_loss": 2 * (weights * attention).mean(),
        "transfer_loss": 0.3 * (weights * (moved**2).mean(axis=1)).mean(),
    }
    assert losses_of(learner, "layers") == pytest.approx(expected, rel=1e-4)


def test_the_student_learns_answers_and_is_measured_on_them(learner):
    s, z = (model(learner.batch)["logits"].numpy()[:6] for model in (learner.app.model, learner.app.model.teacher))
    each = -9 * (softmax(z / 3) * np.log(softmax(s / 3))).sum(axis=1)
    expected = (weights_of_rows(learner) * each).mean()
    assert losses_of(learner, "answers") == pytest.approx({"kd_loss": expected}, rel=1e-5)
    assert losses_of(learner, None) == pytest.approx({"kd_loss": each.mean()}, rel=1e-5)
    outputs = learner.app.forward(learner.batch)
    assert outputs.keys() == {"logits", "teacher_logits"}
    np.testing.assert_allclose(outputs["teacher_logits"][:6], z, atol=1e-6)


def test_stages_train_what_is_theirs(learner):
    app, every = learner.app, learner.app.model.trainable_variables
    first, second, third = app.stages()
    assert [stage.name for stage in (first, second, third)] == ["meta_teacher", "layers", "answers"]
    assert (first.epochs, second.epochs, third.epochs, first.settings) == (3.0, 3.0, None, {})
    names = dict(zip(map(id, every), variable_names(every), strict=True))

    def trained(stage) -> set[str]:
        return {names[each] for each in stage.trained(every)}

    teacher = {name for name in names.values() if name.startswith("training_only_teacher/")}
    compared = {name for name in names.values() if name.startswith("training_only/")}
    top = {
        f"{layer}/{part}"
        for layer in ("encoder/pooler_transform", "text_classifier/head")
        for part in ("kernel", "bias")
    }
    rest = set(names.values()) - teacher - compared - top
    assert trained(first) == teacher and trained(second) == rest | compared and trained(third) == rest | top
    groups = [variable for group in app.layer_groups() for variable in group]
    assert {id(v) for v in groups} == set(names) and len(groups) == len(every)


def test_without_distances_of_layers_there_is_no_stage_for_them(tiny):
    none = {"hidden_weight": 0, "attention_weight": 0, "transfer_weight": 0, "teacher_learning_rate": 0.5}
    app = new_app({**tiny, "num_layers": 1}, NAME, distillation=none)
    app.build_model()
    assert [(stage.name, stage.settings) for stage in app.stages()] == [
        ("meta_teacher", {"learning_rate": 0.5}),
        ("answers", {}),
    ]
    # Cut from the same encoder both have one width, and the last layer is the student's.
    assert app.model.hidden_projection is None
    whole = app.model.teacher.backbone.export_weights()
    for name, value in app.model.backbone.export_weights().items():
        np.testing.assert_array_equal(value, whole[name.replace("layer_0", "layer_1")], name)


# Other runs --------------------------------------------------------------------------------------------------


def test_the_meta_teacher_of_another_run_is_taken(learner, run, tiny, tmp_path):
    given = {"teacher": str(run), "student_domain": "films", "use_typicality": False}
    films = [row for row in ROWS if row[2] == "films"]
    app = new_app({**tiny, "num_layers": 1}, NAME, rows=films, distillation=given)
    assert app.target.domains.names == ["books", "films", "shops"]
    assert app.frozen_records().keys() == {"teacher"}
    table = encoded(app, tmp_path)
    app.on_train_table(table)
    app.before_training(table, tmp_path, ONE_WORKER)
    assert "typicality" not in table.columns
    app.build_model()
    theirs, ours = (model.teacher for model in (learner.app.model, app.model))
    np.testing.assert_allclose(ours(learner.batch)["logits"], theirs(learner.batch)["logits"], atol=1e-6)
    assert not ours.trainable_variables and [stage.name for stage in app.stages()] == ["layers", "answers"]
    assert "corrupted_domain" not in app.training_batch(batch_of(table), RowDraws(tf.constant([1, 2]), tf.constant(6)))
    # Rows of one domain, all of them once in every epoch.
    sampler = app.sampler(table)
    assert sampler.steps(2, 1) == 1 and sorted(np.concatenate(sampler.plan(0, 2, 1))) == [3, 4]
    assert learner.app.sampler(learner.table) is None
    # What this run stores is enough to be opened without the other one.
    save_run(tmp_path / "second", app)
    again = MetaDistillation(app.config)
    again.load_assets(tmp_path / "second")
    assert variable_names(again.build_model(tmp_path / "second").weights) == variable_names(app.model.weights)
    app.config.distillation.student_domain = "cars"
    with pytest.raises(ConfigError, match="no row of distillation.student_domain; got 'cars'; accepted: books, films,"):
        app.sampler(table)


def test_runs_that_do_not_fit_are_refused_in_one_line(run, tiny, tmp_path):
    finetuned = new_app({**tiny, "domain_layers": [1]}, "meta_finetune")
    finetuned.build_model()
    other = save_run(tmp_path / "finetuned", finetuned)
    make_tiny(tmp_path / "words", vocab=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"])
    strange = {"teacher_encoder": str(tmp_path / "words")}
    for path, model, sections, kind, expected in (
        (tmp_path / "nothing", {}, {}, ModelError, "no teacher: there is no checkpoint"),
        (other, {}, {}, ModelError, "holds no meta-teacher; got 'run of meta_finetune'"),
        (run, {}, {"label_enumerate_values": "good,bad"}, ModelError, "other labels, or in another order"),
        (
            run,
            {},
            {"second_sequence": "other"},
            ModelError,
            "input_ids with another number of texts",
        ),
        (None, strange, {}, ConfigError, "model.teacher_encoder has another vocabulary"),
        (None, {**SMALL, "num_heads": 4}, {}, ConfigError, "set model.num_heads=2"),
    ):
        settings = {} if path is None else {"teacher": str(path)}
        with pytest.raises(kind, match=expected) as caught:
            new_app({**tiny, **model}, NAME, distillation=settings, data=sections)
        assert "\n" not in str(caught.value)


def test_settings_that_make_no_sense_are_refused():
    for wrong, expected in (
        ({"distillation": {"student_domain": "films"}}, "needs a meta-teacher that has learnt all domains"),
        ({"distillation": {"layer_map": "1-2"}}, "'1-2' is no map of layers"),
        ({"distillation": {"teacher": "x"}, "model": {"teacher_encoder": "y"}}, "has one already; remove one"),
    ):
        with pytest.raises(ValueError, match=expected):
            MetaDistillationConfig.model_validate(wrong)


# Results -----------------------------------------------------------------------------------------------------


def test_what_is_served_or_started_from_is_the_student_alone(learner, tiny):
    app = learner.app
    specs = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in app.specs().items()}
    used = tf.function(app.predict_step).get_concrete_function(specs).variables
    student = [*app.model.backbone.weights, *app.model.head.weights]
    assert {v.ref() for v in used} == {v.ref() for v in student}
    plain = new_app({**tiny, **SMALL}, "distillation_text_bert", distillation={"kd_loss": "none"})
    plain.build_model()
    names = [name for name in variable_names(app.model.weights) if not name.startswith("training_only")]
    assert names == variable_names(plain.model.weights)
    assert not [name for name in app.exported_files if "teacher" in name]


def test_accuracy_of_student_and_meta_teacher_by_domain():
    logits = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    teacher = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    batch = {"label_id": np.array([0, 1, 1, 0]), "domain_id": np.array([0, 0, 2, 2])}
    names = ["a", "b"], ["x", "y", "z"]
    whole = MetaEvaluator(*names)
    for rows in (slice(0, 3), slice(3, 4)):
        part = MetaEvaluator(*names)
        outputs = {"logits": logits[rows], "teacher_logits": teacher[rows]}
        part.update({name: value[rows] for name, value in batch.items()}, outputs)
        whole.merge(part.state())
    found = whole.result()
    expected = {"accuracy": 0.75, "teacher_accuracy": 0.75, "agreement": 0.5, "mean_domain_teacher_accuracy": 0.75}
    assert {name: found[name] for name in expected} == expected
    assert whole.report()["per_domain"] == [
        {"domain": "x", "rows": 2, "accuracy": 1.0, "teacher_accuracy": 1.0},
        {"domain": "z", "rows": 2, "accuracy": 0.5, "teacher_accuracy": 0.5},
    ]
    alone = MetaEvaluator(*names)
    alone.update(batch, {"logits": logits})
    assert "agreement" not in alone.result() and "teacher_accuracy" not in alone.per_domain()[0]


def test_batches_of_some_rows():
    sampler = RowSampler(np.array([2, 5, 7, 8, 9]), seed=4)
    first, second = (np.concatenate(sampler.plan(epoch, 2, 1)).tolist() for epoch in (0, 1))
    assert sorted(first) == sorted(second) == [2, 5, 7, 8, 9] and first != second
    assert [len(rows) for rows in sampler.plan(0, 2, 1)] == [2, 2, 1] and sampler.steps(2, 1) == 3
    assert np.concatenate(RowSampler(sampler.rows, seed=4).plan(0, 2, 1)).tolist() == first


@pytest.mark.slow
def test_a_training_goes_on_where_it_was_stopped_in_each_stage(tiny, tmp_path):
    """Two steps for the meta-teacher, for layers and for answers: each moves what is its own."""

    def trained(folder: Path, at: int | None = None) -> None:
        train = {"batch_size": 6, "num_epochs": 2, "log_step_count_steps": 1, "save_checkpoint_steps": 1}
        settings = {"teacher_epochs": 2, "layer_epochs": 2}
        app = new_app({**tiny, **SMALL}, NAME, distillation=settings, train={**train, "keep_checkpoint_max": 9})
        table = encoded(app, tmp_path)
        app.on_train_table(table)
        app.before_training(table, tmp_path, ONE_WORKER)
        runtime = app.config.runtime.model_copy(update={"deterministic": True})
        Trainer(app, app.config.train, runtime, folder, StopAt(at)).fit(Batches(table, 6, shuffle=True, seed=1))

    def weights(folder: Path, step: int) -> dict[str, np.ndarray]:
        return checkpoint.load(folder / f"model.ckpt-{step}", weights_only=True).weights

    whole = tmp_path / "whole"
    trained(whole)
    steps = {step: weights(whole, step) for step in range(1, 7)}
    parts = {name: name.split("/")[0] for name in steps[1]}
    for first, moves in ((1, {"training_only_teacher"}), (3, {"training_only", "encoder"})):
        moved = {parts[name] for name in parts if not np.array_equal(steps[first][name], steps[first + 1][name])}
        assert moved == moves, first
    moved = {parts[name] for name in parts if not np.array_equal(steps[5][name], steps[6][name])}
    assert moved == {"encoder", "text_classifier"}
    for at in (1, 3, 5):
        folder = tmp_path / f"stopped_{at}"
        with pytest.raises(Interrupted):
            trained(folder, at)
        trained(folder)
        for name, value in weights(folder, 6).items():
            np.testing.assert_array_equal(value, steps[6][name], name)
