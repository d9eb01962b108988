"""Students cut from encoders, and what they learn from layers and probes of a teacher, against NumPy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tiny_text_distillation import LABELS, ROWS, batch_of, encoded, new_app, save_teacher, softmax, student
from training import StopAt

from appzoo.distillation_text.losses import attention_loss, hidden_loss
from appzoo.layer_map import layer_pairs
from appzoo.pooled_model import PooledModel
from appzoo.student_encoder import chosen_layers
from easytransfer.data.batches import Batches
from easytransfer.errors import ConfigError, Interrupted, ModelError
from easytransfer.train import checkpoint
from easytransfer.train.step import EVALUATION
from easytransfer.train.trainer import Trainer
from modelzoo.backbone import Backbone
from modelzoo.commands import make_tiny

RANDOM = np.random.default_rng(2)
SMALL = {"from_scratch": True, "num_layers": 2, "hidden_size": 8, "num_heads": 2, "intermediate_size": 8}
ALL = {"hidden_weight": 0.5, "attention_weight": 2.0, "probes": True, "kd_loss": "kld", "kd_task_balance": 0.4}


@pytest.fixture(scope="module")
def tiny(tiny_model) -> dict[str, Any]:
    return {"pretrain_model_name_or_path": str(tiny_model)}


@pytest.fixture(scope="module")
def teacher(tiny, tmp_path_factory) -> Path:
    """An encoder of four layers, which the two of the small model are half of."""
    sizes = {**tiny, "from_scratch": True, "num_layers": 4}
    plain = {"kd_loss": "none"}
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run", "distillation_text_bert", sizes, distillation=plain)


@pytest.fixture(scope="module")
def learner(teacher, tiny, tmp_path_factory) -> SimpleNamespace:
    """A narrow student that learns from answers, layers, attentions and probes, with a batch and its outputs."""
    app = student(teacher, {**tiny, **SMALL}, distillation=ALL)
    table = encoded(app, tmp_path_factory.mktemp("table"))
    app.on_train_table(table)
    app.build_model()
    for variable in app.model.trainable_variables:
        deviation = 2.0 if "probes" in variable.name else 0.3
        variable.assign(RANDOM.normal(0, deviation, variable.shape))
    # Row 4 only fills the batch.
    batch = batch_of(table, size=5)
    outputs = app.forward(batch)
    return SimpleNamespace(
        app=app,
        batch=batch,
        outputs=outputs,
        found={name: value.numpy() for name, value in outputs.items()},
        mask=batch["input_mask"].numpy() * np.array([1, 1, 1, 1, 0])[:, None],
        labels=batch["label_id"].numpy(),
    )


def loss_of(learner: SimpleNamespace, name: str, step: Any = EVALUATION) -> float:
    total, weight = learner.app.losses(learner.batch, learner.outputs, step)[name]
    return float(total / weight)


# Which layers ------------------------------------------------------------------------------------------------


def test_maps_of_layers():
    assert layer_pairs("uniform", 3, 12) == [(0, 0), (1, 4), (2, 8), (3, 12)]
    assert layer_pairs("uniform", 4, 6) == [(0, 0), (1, 2), (2, 3), (3, 5), (4, 6)]
    assert layer_pairs("last", 2, 6) == [(0, 0), (1, 5), (2, 6)]
    assert layer_pairs("0:0,2:5", 2, 6) == [(0, 0), (2, 5)]
    with pytest.raises(ConfigError, match="the student has 7 layers and the teacher 6; use distillation.layer_map"):
        layer_pairs("last", 7, 6)
    with pytest.raises(ConfigError, match="not there; got '1:7'; accepted: 0 to 2 of the student, 0 to 6 of the teach"):
        layer_pairs("1:7", 2, 6)


def test_layers_taken_from_an_encoder():
    assert chosen_layers("uniform", 2, 6) == [2, 5] and chosen_layers("uniform", 4, 6) == [1, 2, 4, 5]
    assert chosen_layers("first", 2, 6) == [0, 1] and chosen_layers("uniform", 6, 6) == list(range(6))
    with pytest.raises(ConfigError, match="exceeds the layers .* got 7; accepted: at most 6"):
        chosen_layers("first", 7, 6)


@pytest.mark.parametrize("family", ["bert", "albert", "roberta", "xlnet"])
def test_an_encoder_of_some_layers_has_their_weights(family, tmp_path):
    make_tiny(tmp_path / family, family)
    whole = Backbone.from_preset(tmp_path / family)
    ids = np.array([[5, 6, 7, 8]], np.int32)
    batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    states = whole(batch)["hidden_states"]
    first = whole.with_layers([0])
    assert len(states) == 3 and first.config.num_hidden_layers == 1
    np.testing.assert_allclose(first(batch)["hidden_states"][1], states[1], atol=1e-6)
    both = whole.with_layers([1, 0]).with_layers([1, 0])
    np.testing.assert_allclose(both(batch)["sequence_output"], states[2], atol=1e-6)
    if family != "albert":
        swapped = whole.with_layers([1, 0])(batch)["sequence_output"]
        assert np.abs(swapped - states[2]).max() > 1e-4


def test_students_of_a_zoo_model(tiny, tmp_path):
    cut = student(None, {**tiny, "num_layers": 1}, distillation={"kd_loss": "none"})
    cut.build_model()
    whole = Backbone.from_preset(tiny["pretrain_model_name_or_path"])
    theirs = whole.export_weights()
    for name, value in cut.model.backbone.export_weights().items():
        np.testing.assert_array_equal(value, theirs[name.replace("layer_0", "layer_1")], name)
    small = student(None, {**tiny, **SMALL}, distillation={"kd_loss": "none"})
    small.build_model()
    sizes = small.model.backbone.config
    found = (sizes.num_hidden_layers, sizes.hidden_size, sizes.num_attention_heads, sizes.intermediate_size)
    assert found == (2, 8, 2, 8) and sizes.vocab_size == whole.config.vocab_size
    # The run has the sizes: nothing of the zoo is needed.
    small.save_assets(tmp_path)
    again = new_app("distillation_text_bert", {**tiny, **SMALL}, distillation={"kd_loss": "none"})
    again.load_assets(tmp_path)
    assert [w.shape for w in again.build_model(tmp_path).weights] == [w.shape for w in small.model.weights]
    with pytest.raises(ConfigError, match="hidden_size 9 is not a multiple of num_attention_heads 2"):
        student(None, {**tiny, **SMALL, "hidden_size": 9}, distillation={"kd_loss": "none"})


# Layers ------------------------------------------------------------------------------------------------------


def test_attentions_are_those_of_numpy(tiny):
    backbone = Backbone.from_preset(tiny["pretrain_model_name_or_path"])
    weights, heads = backbone.export_weights(), backbone.config.num_attention_heads
    ids = RANDOM.integers(5, 40, (2, 6)).astype(np.int32)
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32)
    states = backbone({"input_ids": ids, "input_mask": mask})["hidden_states"]
    for layer, found in enumerate(backbone.attentions(states, tf.constant(mask))):
        x, scope = states[layer].numpy(), f"bert/encoder/layer_{layer}/attention/self"
        parts = [x @ weights[f"{scope}/{name}/kernel"] + weights[f"{scope}/{name}/bias"] for name in ("query", "key")]
        query, key = (part.reshape(2, 6, heads, -1).transpose(0, 2, 1, 3) for part in parts)
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
        expected = softmax(np.where(mask[:, None, None] > 0, scores, -1e9))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert layer == 1


def test_a_hand_worked_case_of_the_layers():
    """Two rows of two tokens, the second of the second row is padding: three tokens, and 4 + 1 pairs of tokens."""
    weight = tf.constant([[1.0, 1.0], [1.0, 0.0]])
    ours = tf.constant([[[1.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [9.0, 9.0]]])
    loss = hidden_loss([ours, ours], [tf.zeros_like(ours), tf.ones_like(ours)], weight)
    # Means over the width: (1/2, 0, 4) and (1/2, 1, 1).
    assert (float(loss.sum), float(loss.weight)) == (7.0, 3.0)
    attention = tf.constant(np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
    loss = attention_loss([attention], [attention - [[[[1.0]], [[3.0]]]]], weight)
    assert (float(loss.sum), float(loss.weight)) == (25.0, 5.0)


def test_outputs_and_attentions_of_layers_are_those_of_numpy(learner):
    app, found, mask = learner.app, learner.found, learner.mask
    assert app.pairs == [(0, 0), (1, 2), (2, 4)]
    assert (found["hidden_states"].shape[1], found["teacher_hidden_states"].shape[1]) == (3, 5)
    projections = [layer.kernel.numpy() for layer in (app.model.embedding_projection, app.model.hidden_projection)]
    expected = 0.0
    for i, j in app.pairs:
        ours = found["hidden_states"][:, i] @ projections[min(i, 1)]
        expected += (((ours - found["teacher_hidden_states"][:, j]) ** 2).mean(-1) * mask).sum() / mask.sum()
    assert loss_of(learner, "hidden_loss") == pytest.approx(0.5 * expected, rel=1e-5)
    expected, pairs = 0.0, mask[:, :, None] * mask[:, None]
    for i, j in ((0, 1), (1, 3)):
        squares = ((found["attentions"][:, i] - found["teacher_attentions"][:, j]) ** 2).mean(1)
        expected += (squares * pairs).sum() / pairs.sum()
    assert loss_of(learner, "attention_loss") == pytest.approx(2 * expected, rel=1e-5)


def test_probes_are_those_of_numpy(learner):
    app, found, labels = learner.app, learner.found, learner.labels
    given = learner.batch["input_mask"].numpy()[:, :, None]

    def logits(which: str, states: np.ndarray) -> np.ndarray:
        probes = getattr(app.model, which)
        vectors = [(states[:, 0] * given).sum(1) / given.sum(1), *(states[:, i, 0] for i in range(1, states.shape[1]))]
        parts = zip(vectors, probes.kernel.numpy(), probes.bias.numpy(), strict=True)
        return np.stack([vector @ kernel + bias for vector, kernel, bias in parts], axis=1)[:4]

    theirs = logits("teacher_probes", found["teacher_hidden_states"])
    ours = logits("student_probes", found["hidden_states"][:, :-1])
    assert theirs.shape == (4, 5, 3) and ours.shape == (4, 2, 3)
    labelled = labels[:4] >= 0

    def hard(each: np.ndarray) -> float:
        return sum(-np.log(softmax(each[:, i]))[np.arange(4), labels[:4]][labelled].sum() for i in range(each.shape[1]))

    assert loss_of(learner, "probe_loss", SimpleNamespace(stage="teacher_probes")) == pytest.approx(hard(theirs) / 4)
    assert learner.app.losses(learner.batch, learner.outputs, SimpleNamespace(stage="teacher_probes")).keys() == {
        "probe_loss"
    }
    soft = 0.0
    for i, j in ((0, 0), (1, 2)):
        p, q = softmax(theirs[:, j] / 2), softmax(ours[:, i] / 2)
        soft += 4 * (p * np.log(p / q)).sum(-1).mean()
    assert loss_of(learner, "probe_kd_loss") == pytest.approx(0.6 * soft, rel=1e-5)
    assert loss_of(learner, "probe_ce_loss") == pytest.approx(0.4 * hard(ours) / 4, rel=1e-5)
    names = {"ce_loss", "kd_loss", "hidden_loss", "attention_loss", "probe_kd_loss", "probe_ce_loss"}
    assert app.losses(learner.batch, learner.outputs, EVALUATION).keys() == names


def test_what_is_served_has_nothing_of_the_teacher(learner, tmp_path):
    app = learner.app
    specs = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in app.specs().items()}
    used = tf.function(app.predict_step).get_concrete_function(specs).variables
    plain = PooledModel(app.model.backbone, len(LABELS), 0.1)
    plain({name: learner.batch[name] for name in specs})
    assert len(app.model.weights) > len(plain.weights)
    assert {v.ref() for v in used} <= {v.ref() for v in [*app.model.backbone.weights, *app.model.head.weights]}
    app.save_assets(tmp_path)
    assert not {path.name for path in tmp_path.iterdir()} & set(app.exported_files) & {"distillation.json"}
    # The run has them: its checkpoints fit.
    again = new_app("distillation_text_bert", app.config.model.model_dump(), distillation=ALL)
    again.load_assets(tmp_path)
    assert [w.shape for w in again.build_model(tmp_path).weights] == [w.shape for w in app.model.weights]


def test_stages_train_probes_and_then_the_student(learner):
    first, second = learner.app.stages()
    names = [variable.name for variable in learner.app.model.trainable_variables if "backbone" not in variable.name]
    extra = [name for name in names if "probes" in name or "projection" in name]
    assert sorted(extra) == sorted(
        [f"{which}_probes/{part}:0" for which in ("student", "teacher") for part in ("kernel", "bias")]
        + [f"{which}_projection/kernel:0" for which in ("embedding", "hidden")]
    )
    probes = learner.app.model.teacher_probes.trainable_variables
    assert first.name == "teacher_probes" and first.epochs == 4 and first.settings == {"learning_rate": 5e-3}
    every = learner.app.model.trainable_variables
    assert first.trained(every) == {id(v) for v in probes}
    assert second.trained(every) == {id(v) for v in every} - {id(v) for v in probes} and second.epochs is None
    groups = [variable for group in learner.app.layer_groups() for variable in group]
    assert {id(v) for v in groups} == {id(v) for v in every} and len(groups) == len(every)


def test_layers_that_cannot_be_compared_are_refused_in_one_line(teacher, tiny, tmp_path):
    words = save_teacher(
        tmp_path / "words", "text_classify_cnn", {"embedding_size": 4, "num_filters": [3], "filter_sizes": [2]}
    )
    for path, model, settings, data, kind, expected in (
        (words, tiny, {"hidden_weight": 1}, {}, ModelError, "has no encoder with layers; got 'text_classify_cnn'"),
        (teacher, tiny, {"hidden_weight": 1}, {"sequence_length": 8}, ModelError, "has other tokens .*Length=12"),
        (teacher, {**tiny, **SMALL, "num_heads": 4}, {"attention_weight": 1}, {}, ConfigError, "set model.num_heads=2"),
        (teacher, tiny, {"attention_weight": 1, "layer_map": "0:1"}, {}, ConfigError, "embeddings have no attentions"),
    ):
        with pytest.raises(kind, match=expected) as caught:
            student(path, model, distillation=settings, data=data)
        assert "\n" not in str(caught.value)
    # Probes look at whole rows: tokens may differ.
    app = student(teacher, tiny, distillation={"probes": True}, data={"sequence_length": 8})
    table = encoded(app, tmp_path, ROWS)
    app.build_model()
    batch = batch_of(table)
    found = app.losses(batch, app.forward(batch), EVALUATION)
    assert found.keys() == {"ce_loss", "kd_loss", "probe_kd_loss"} and all(
        np.isfinite(part[0]) for part in found.values()
    )


def test_layers_first_and_answers_then(teacher, tiny, tmp_path):
    """The two steps of TinyBERT: the sums of both stages are those of one training on everything."""
    settings = {**ALL, "probes": False, "layer_epochs": 3, "layer_learning_rate": 1e-3}
    app = student(teacher, {**tiny, **SMALL}, distillation=settings)
    table = encoded(app, tmp_path)
    app.build_model()
    first, second = app.stages()
    assert (first.name, first.epochs, first.settings) == ("layers", 3, {"learning_rate": 1e-3})
    assert second.name == "student" and second.epochs is None
    every, batch = app.model.trainable_variables, batch_of(table)
    layers, answers = first.trained(every), second.trained(every)
    names = {id(v): v.name for v in every}
    assert {names[i] for i in answers - layers} == {v.name for v in every if "pooler" in v.name or "head/" in v.name}
    assert {names[i] for i in layers - answers} == {
        "embedding_projection/kernel:0",
        "hidden_projection/kernel:0",
    }

    def found(stage: str | None) -> dict[str, float]:
        losses = app.losses(batch, outputs, SimpleNamespace(stage=stage))
        return {name: float(total / weight) for name, (total, weight) in losses.items()}

    with tf.GradientTape() as tape:
        outputs = app.forward(batch, training=True)
        total = tf.add_n([loss.sum for loss in app.losses(batch, outputs, SimpleNamespace(stage="layers")).values()])
    reached = {v.name for v, g in zip(every, tape.gradient(total, every), strict=True) if g is not None}
    assert reached == {names[i] for i in layers}
    assert found("layers").keys() == {"hidden_loss", "attention_loss"}
    assert found("student").keys() == {"ce_loss", "kd_loss"} and found(None) == found("student")
    at_once = student(teacher, {**tiny, **SMALL}, distillation={**ALL, "probes": False})
    at_once.model = app.model
    whole = at_once.losses(batch, outputs, EVALUATION)
    assert {n: float(t / w) for n, (t, w) in whole.items()} == pytest.approx({**found("layers"), **found(None)})


@pytest.mark.slow
@pytest.mark.parametrize("two_steps", [False, True], ids=["at_once", "two_steps"])
def test_a_training_in_stages_goes_on_where_it_was_stopped(two_steps, teacher, tiny, tmp_path):
    """Two steps for the teacher's probes, two for layers if apart, two for the student: each moves what is its own."""
    stages = {
        "teacher_probes": (1, 2),
        "layers": (3, 4) if two_steps else (),
        "student": (5, 6) if two_steps else (3, 4),
    }
    last = 6 if two_steps else 4

    def trained(folder: Path, at: int | None = None) -> None:
        train = {"batch_size": 4, "num_epochs": 2, "log_step_count_steps": 1, "save_checkpoint_steps": 1}
        settings = {**ALL, "probe_epochs": 2, "layer_epochs": 2 if two_steps else None}
        app = student(teacher, {**tiny, **SMALL}, distillation=settings, train={**train, "keep_checkpoint_max": 9})
        table = encoded(app, tmp_path)
        app.on_train_table(table)
        runtime = app.config.runtime.model_copy(update={"deterministic": True})
        Trainer(app, app.config.train, runtime, folder, StopAt(at)).fit(Batches(table, 4, shuffle=True, seed=1))

    def weights(folder: Path, step: int) -> dict[str, np.ndarray]:
        return checkpoint.load(folder / f"model.ckpt-{step}", weights_only=True).weights

    whole = tmp_path / "whole"
    trained(whole)
    steps = {step: weights(whole, step) for step in range(1, last + 1)}
    moved = {
        step: {name for name, value in steps[step].items() if not np.array_equal(value, steps[step - 1][name])}
        for step in range(2, last + 1)
    }
    probes = {name for name in steps[1] if name.startswith("teacher_probes")}
    projections = {name for name in steps[1] if "_projection/" in name}
    of_answers = {name for name in steps[1] if name.startswith(("head/", "student_probes"))}
    assert probes and projections and of_answers
    for step, names in moved.items():
        stage = next(name for name, its in stages.items() if step in its)
        if stage == "teacher_probes":
            assert names == probes, step
        elif stage == "layers":
            assert projections < names and not names & (probes | of_answers), step
        else:
            assert of_answers < names and not names & probes, step
            assert projections <= names if not two_steps else not names & projections, step
    for at in (its[0] for its in stages.values() if its):
        folder = tmp_path / f"stopped_{at}"
        with pytest.raises(Interrupted):
            trained(folder, at)
        trained(folder)
        for name, value in weights(folder, last).items():
            np.testing.assert_array_equal(value, steps[last][name], name)
