"""Distillation of text classifiers: its losses against NumPy, teachers of all kinds, rows without label, the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_frozen import save_export
from tiny_text_distillation import LABELS, PAIR, ROWS, batch_of, encoded, new_app, save_teacher, softmax, student

from appzoo import teacher_outputs
from appzoo.distillation_text.config import CnnDistillationConfig, EncoderDistillationConfig
from appzoo.distilled_label import StudentEvaluator
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import BadRows
from easytransfer.distributed.workers import ONE_WORKER
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.train import checkpoint
from easytransfer.train.step import EVALUATION
from easytransfer.train.weights import assign_arrays

CNN = {"embedding_size": 4, "num_filters": [3], "filter_sizes": [2]}


@pytest.fixture(scope="module")
def tiny(tiny_model) -> dict[str, Any]:
    return {"pretrain_model_name_or_path": str(tiny_model)}


@pytest.fixture(scope="module")
def teachers(tiny, tmp_path_factory) -> dict[str, Path]:
    """Runs by kind: an encoder, convolutions with words of their own, and an encoder of pairs."""
    folder = tmp_path_factory.mktemp("teachers")
    return {
        "encoder": save_teacher(folder / "encoder", "text_classify_bert", tiny),
        "words": save_teacher(folder / "words", "text_classify_cnn", CNN),
        "pair": save_teacher(folder / "pair", "text_match_bert", tiny, second_sequence="other"),
        "short": save_teacher(folder / "short", "text_classify_bert", tiny, sequence_length=6, no_truncate=True),
    }


def answers_alone(folder: Path, tmp_path: Path, rows=ROWS, schema="text:str:1,label:str:1", **data) -> np.ndarray:
    """Logits of a teacher, as it is without any student: its application, opened from its run, on the same texts."""
    stored = checkpoint.load(folder / "model.ckpt-5", weights_only=True)
    config = json.loads((folder / CONFIG_FILE).read_text())
    app = new_app(config["model_name"], config["model"], data={**config["data"], "no_truncate": False, **data})
    app.load_assets(folder)
    app.build_model(folder)
    assign_arrays(app.model.weights, stored.weights, "stored")
    labelled = [(*row[:-1], LABELS[0]) for row in rows]
    return app.forward(batch_of(encoded(app, tmp_path, labelled, schema)))["logits"].numpy()


def cross_entropies(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of each row, 0 for one without label."""
    rows = -np.log(softmax(logits))[np.arange(len(labels)), np.maximum(labels, 0)]
    return np.where(labels >= 0, rows, 0)


def distances(kind: str, z: np.ndarray, s: np.ndarray, temperature: float) -> np.ndarray:
    p, q = softmax(z / temperature), softmax(s / temperature)
    if kind == "mse":
        return ((z - s) ** 2).sum(-1) / 2
    return temperature**2 * (-(p * np.log(q)).sum(-1) if kind == "xent" else (p * np.log(p / q)).sum(-1))


# Answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "teacher", "class_weights"),
    [("mse", "encoder", None), ("xent", "words", "1,2,0.5"), ("kld", "short", None)],
)
def test_the_losses_are_those_of_numpy(kind, teacher, class_weights, teachers, tiny, tmp_path):
    settings = {"kd_loss": kind, "kd_alpha": 0.7, "kd_task_balance": 0.4, "kd_temperature": 3.0}
    train = {"class_weights": class_weights}
    app = student(teachers[teacher], {**tiny, "num_layers": 1}, distillation=settings, train=train)
    assert app.teacher.shares_tokens == (teacher == "encoder")
    table = encoded(app, tmp_path)
    app.on_train_table(table)
    app.build_model()
    # Rows 4 and 5 only fill the batch.
    batch = batch_of(table, size=6)
    outputs = app.forward(batch, training=False)
    s, z = (outputs[name].numpy()[:4] for name in ("logits", "teacher_logits"))
    np.testing.assert_allclose(z, answers_alone(teachers[teacher], tmp_path), atol=1e-5)
    labels = table.columns["label_id"]
    assert labels.tolist() == [1, 0, -1, 2]
    row_weights = np.array([2, 1, 1, 0.5]) if class_weights else np.ones(4)
    hard = (row_weights * cross_entropies(labels, s)).sum() / row_weights.sum()
    soft = distances(kind, z, s, 3.0).mean()
    found = {name: float(total / weight) for name, (total, weight) in app.losses(batch, outputs, EVALUATION).items()}
    factors = (1, 0.7) if kind == "mse" else (0.4, 0.6)
    assert found == pytest.approx({"ce_loss": factors[0] * hard, "kd_loss": factors[1] * soft}, rel=1e-5)
    with tf.GradientTape() as tape:
        losses = app.losses(batch, app.forward(batch, training=True), EVALUATION)
        value = tf.add_n([loss.sum for loss in losses.values()])
    assert all(g is None for g in tape.gradient(value, app.teacher.frozen.app.model.weights))


def test_a_pair_and_a_student_of_words(teachers, tiny, tmp_path):
    rows = [("a good book", "is here", "hot"), ("bad film", "of the day", "")]
    pair = student(teachers["pair"], tiny, data={"second_sequence": "other"})
    table = encoded(pair, tmp_path, rows, PAIR)
    pair.on_train_table(table)
    pair.build_model()
    found = pair.forward(batch_of(table))["teacher_logits"]
    np.testing.assert_allclose(found, answers_alone(teachers["pair"], tmp_path, rows, PAIR), atol=1e-5)

    words = student(teachers["encoder"], CNN, "distillation_text_cnn")
    table = encoded(words, tmp_path)
    words.on_train_table(table)
    words.build_model()
    outputs = words.forward(batch_of(table))
    np.testing.assert_allclose(outputs["teacher_logits"], answers_alone(teachers["encoder"], tmp_path), atol=1e-5)
    # What predicts reads nothing of the teacher.
    inputs = words.model_inputs(table.batch([0, 1]))
    assert inputs.keys() == {"input_ids", "input_mask"}
    assert words.forward({name: tf.constant(x) for name, x in inputs.items()}).keys() == {"logits"}
    mine = {id(variable) for variable in words.model.variables}
    assert not mine & {id(variable) for variable in words.teacher.frozen.app.model.variables}


def test_an_export_can_be_the_teacher_of_answers(teachers, tiny, tmp_path):
    (tmp_path / "export" / "assets.extra").mkdir(parents=True)
    export = save_export(teachers["words"], tmp_path / "export")
    app = student(export, {**tiny, "num_layers": 1})
    table = encoded(app, tmp_path)
    app.build_model()
    found = app.forward(batch_of(table))["teacher_logits"]
    np.testing.assert_allclose(found, answers_alone(teachers["words"], tmp_path), atol=1e-5)
    with pytest.raises(ModelError, match="is an export, whose layers are not to be seen; give its run"):
        student(export, tiny, distillation={"hidden_weight": 1})


def test_rows_without_label_are_counted_and_only_taken_with_a_teacher(teachers, tiny, tmp_path, capfd):
    app = student(teachers["encoder"], tiny, train={"class_weights": "balanced"})
    app.on_train_table(encoded(app, tmp_path))
    assert "1 of 4 training rows have no label: they learn from the teacher alone" in capfd.readouterr().err
    np.testing.assert_allclose(app.target.class_weights, [1, 1, 1], err_msg="of the three rows with labels")
    for row in (("x", "icy"), ("x", "hot,cold")):
        with pytest.raises(DataError, match="unknown label"):
            encoded(app, tmp_path, [row])
    plain, bad = student(None, tiny, distillation={"kd_loss": "none"}), BadRows("skip")
    table = encoded(plain, tmp_path, bad=bad)
    assert len(table) == 3 and bad.reasons == {"empty label": 1}
    plain.build_model()
    outputs = plain.forward(batch_of(table))
    ((total, weight),) = plain.losses(batch_of(table), outputs, EVALUATION).values()
    expected = cross_entropies(table.columns["label_id"], outputs["logits"].numpy()).mean()
    assert outputs.keys() == {"logits"} and float(total / weight) == pytest.approx(expected, rel=1e-5)


def test_metrics_leave_out_what_has_no_label(capfd):
    logits = np.float32([[2, 1, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]])
    teacher = np.float32([[2, 1, 0], [0, 0, 1], [3, 0, 0], [0, 0, 1]])
    parts = [StudentEvaluator(LABELS), StudentEvaluator(LABELS)]
    labels = np.array([0, 2, -1, 2])
    for part, rows in zip(parts, (slice(0, 3), slice(3, 4)), strict=True):
        part.update({"label_id": labels[rows]}, {"logits": logits[rows], "teacher_logits": teacher[rows]})
    whole = StudentEvaluator(LABELS)
    for part in parts:
        whole.merge(part.state())
    found = whole.result()
    assert (found["accuracy"], found["teacher_accuracy"], found["agreement"]) == pytest.approx((1 / 3, 1, 1 / 3))
    assert whole.report()["unlabelled_rows"] == 1 and whole.report()["rows"] == 3
    assert "1 rows of the evaluation table have no label and are not measured" in capfd.readouterr().err
    blind = StudentEvaluator(LABELS)
    blind.update({"label_id": labels[2:3]}, {"logits": logits[2:3]})
    with pytest.raises(DataError, match="no row of the evaluation table has a label"):
        blind.result()
    assert "agreement" not in StudentEvaluator(LABELS).result()


def test_cached_answers_are_found_again_by_their_content(teachers, tiny, tmp_path, monkeypatch):
    def asked(teacher: str, rows=ROWS, batch: int = 3) -> tuple[np.ndarray, int]:
        settings = {"kd_teacher_logits": "cached"}
        app = student(teachers[teacher], tiny, distillation=settings, train={"eval_batch_size": batch})
        table, calls = encoded(app, tmp_path, rows), []
        plain = teacher_outputs.teacher_logits
        with monkeypatch.context() as patch:
            patch.setattr(teacher_outputs, "teacher_logits", lambda *a: (calls.append(1), plain(*a))[1])
            app.before_training(table, tmp_path / "run", ONE_WORKER)
        return np.asarray(table.columns["teacher_logits"]), len(calls)

    first, calls = asked("words")
    np.testing.assert_allclose(first, answers_alone(teachers["words"], tmp_path), atol=1e-5)
    assert calls == 1 and first.dtype == np.float32
    again, calls = asked("words")
    assert calls == 0
    np.testing.assert_array_equal(again, first)
    # Another teacher, and another text.
    assert asked("short")[1] == 1 and asked("words", [("a good day", "hot"), *ROWS[1:]])[1] == 1
    files = list((tmp_path / "run" / "cache").rglob("*.npy"))
    assert len(files) == 3

    app = student(teachers["words"], tiny)
    app.build_model()
    table = encoded(app, tmp_path)
    table.columns["teacher_logits"] = first + 1
    np.testing.assert_array_equal(
        app.forward(batch_of(table))["teacher_logits"], first + 1, "the cached ones are taken"
    )


def test_the_key_of_the_cache_depends_on_every_value():
    table = EncodedTable({"a": np.arange(4), "b": np.zeros((4, 2), np.float32)})
    keys = {teacher_outputs.content_key("x", table), teacher_outputs.content_key("y", table)}
    for name, at in (("a", 3), ("b", (0, 1))):
        column = table.columns[name].copy()
        column[at] += 1
        keys.add(teacher_outputs.content_key("x", EncodedTable({**table.columns, name: column})))
    keys.add(teacher_outputs.content_key("x", EncodedTable({"c": table.columns["a"], "b": table.columns["b"]})))
    assert len(keys) == 5


# What is refused ---------------------------------------------------------------------------------------------


def test_teachers_that_do_not_fit_are_refused_in_one_line(teachers, tiny, tmp_path):
    def refused(
        teacher: Path | None, expected: str, model=None, kind: type[Exception] = ModelError, **sections
    ) -> None:
        with pytest.raises(kind, match=expected) as caught:
            student(teacher, model or tiny, **sections)
        assert "\n" not in str(caught.value)

    refused(None, "kd_loss=mse needs a teacher; give the run folder of one with --teacher=RUN", kind=ConfigError)
    inside = {"kd_loss": "none", "hidden_weight": 2}
    wanted = "distillation.hidden_weight=2 needs a teacher; .*, or set distillation.hidden_weight=0"
    refused(None, wanted, kind=ConfigError, distillation=inside)
    refused(tmp_path / "nothing", "no teacher: there is no checkpoint .*nothing")
    refused(teachers["encoder"], "other labels, or in another order", data={"label_enumerate_values": "hot,cold,warm"})
    refused(
        teachers["encoder"], "needs a task with one class", data={"label_enumerate_values": "none"}, kind=ConfigError
    )
    refused(teachers["pair"], "reads pairs of texts, and this run does not; .*name secondSequence")
    refused(teachers["encoder"], "reads one text, and this run does not", data={"second_sequence": "other"})
    towers = save_teacher(
        tmp_path / "towers",
        "text_match_bert_two_tower",
        {**tiny, "match_label": "hot"},
        second_sequence="other",
        label_enumerate_values="cold,hot",
    )
    two = {"second_sequence": "other", "label_enumerate_values": "cold,hot"}
    refused(towers, "gives no logits of classes; got 'text_match_bert_two_tower'", data=two)
    score = save_teacher(tmp_path / "score", "text_classify_bert", tiny, label_enumerate_values="none")
    refused(score, "gives no logits of classes")
    ids = {"input_schema": "input_ids:int:12,input_mask:int:12,segment_ids:int:12,label_id:int:1"}
    refused(teachers["words"], "tables of token ids have no text for the teacher", data=ids, kind=ConfigError)
    # One with the same tokens reads them, and the table needs no further column.
    assert student(teachers["encoder"], tiny, data=ids).label_columns == ("label_id",)


def test_settings_that_make_no_sense_are_refused():
    for section, wrong, expected in (
        ("model", {"hidden_size": 16}, "have no pre-trained weights; set model.from_scratch=true"),
        ("distillation", {"teacher": "x", "kd_loss": "none"}, "distillation.kd_loss=none does not use it"),
        ("distillation", {"probes": True, "kd_loss": "none"}, "probes needs a distance of logits"),
        ("distillation", {"kd_teacher_logits": "cached", "hidden_weight": 1}, "cached keeps logits alone"),
        ("distillation", {"layer_epochs": 2}, "layer_epochs needs layers that are compared"),
        ("distillation", {"hidden_weight": 1, "layer_learning_rate": 1e-3}, "is that of layer_epochs; give both"),
        ("distillation", {"layer_map": "1-2"}, "'1-2' is no map of layers; accepted: uniform, last, or pairs"),
        ("distillation", {"layer_map": "1:2,1:3"}, "names a layer of the student twice"),
    ):
        with pytest.raises(ValueError, match=expected):
            EncoderDistillationConfig.model_validate({section: wrong})
    with pytest.raises(ValueError, match="second_sequence does not apply to distillation_text_cnn"):
        CnnDistillationConfig.model_validate(
            {"model_name": "distillation_text_cnn", "data": {"second_sequence": "other"}}
        )
