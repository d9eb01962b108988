"""Distillation of labellers: distances at words against NumPy, teachers of all kinds, rows without tags, metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_frozen import save_export
from tiny_text_distillation import batch_of, encoded, new_app, save_run, save_teacher, softmax

from appzoo.distillation_text.labeling import StudentTagEvaluator
from easytransfer.data.table import BadRows
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.run.folder import CONFIG_FILE
from easytransfer.train import checkpoint
from easytransfer.train.step import EVALUATION
from easytransfer.train.weights import assign_arrays
from modelzoo.commands import make_tiny

TAGS = ["O", "B-X", "I-X"]
# The second one has no tags; the third one needs several windows of 8 pieces.
ROWS = [
    ("the good book is", "O B-X I-X O"),
    ("bad film", ""),
    ("a film of the day is here for no good", "O B-X" + " O" * 8),
]
SCHEMA = "text:str:1,tags:str:1"
LABELER, STUDENT = "sequence_labeling_bert", "distillation_text_labeling"


def labeler(name: str, model: dict[str, Any], data: Any = None, **sections: Any) -> Any:
    given = {"label_name": "tags", "label_enumerate_values": ",".join(TAGS), "sequence_length": 8, **(data or {})}
    return new_app(name, model, data=given, **sections)


def save_labeler(folder: Path, model: dict[str, Any], name: str = LABELER, **sections: Any) -> Path:
    """Writes the run folder of a labeller with random weights."""
    app = labeler(name, model, **sections)
    app.load_assets(None)
    return save_run(folder, app)


@pytest.fixture(scope="module")
def tiny(tiny_model) -> dict[str, Any]:
    return {"pretrain_model_name_or_path": str(tiny_model)}


@pytest.fixture(scope="module")
def teachers(tiny, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labelers")
    return {
        "plain": save_labeler(folder / "plain", tiny),
        "crf": save_labeler(folder / "crf", {**tiny, "use_crf": True}),
    }


def student(teacher: Path | None, model: dict[str, Any], distillation: Any = None, **sections: Any) -> Any:
    given = {"teacher": None if teacher is None else str(teacher), **(distillation or {})}
    app = labeler(STUDENT, model, distillation=given, **sections)
    app.load_assets(None)
    return app


def outputs_of(folder: Path, batch: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """What a teacher says, opened from its run without any student."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    app = new_app(config["model_name"], config["model"], data=config["data"])
    app.load_assets(folder)
    app.build_model(folder)
    stored = checkpoint.load(folder / "model.ckpt-5", weights_only=True)
    assign_arrays(app.model.weights, stored.weights, "stored")
    return {name: value.numpy() for name, value in app.forward(batch).items()}


@pytest.mark.parametrize(
    ("kind", "teacher", "all_pieces"), [("mse", "plain", False), ("xent", "plain", True), ("kld", "crf", False)]
)
def test_the_losses_are_those_of_numpy(kind, teacher, all_pieces, teachers, tiny, tmp_path):
    settings = {"kd_loss": kind, "kd_alpha": 0.7, "kd_task_balance": 0.4, "kd_temperature": 3.0}
    model = {**tiny, "num_layers": 1, "label_all_subtokens": all_pieces}
    app = student(teachers[teacher], model, settings)
    table = encoded(app, tmp_path, ROWS, SCHEMA)
    app.build_model()
    # The last windows only fill the batch.
    windows = len(table)
    assert windows > len(ROWS)
    batch = batch_of(table, size=windows + 2)
    outputs = app.forward(batch, training=False)
    theirs = outputs_of(teachers[teacher], {name: batch[name] for name in app.specs()})
    hard, soft, tokens, words = 0.0, 0.0, 0, 0
    labels, starts = batch["label_id"].numpy(), batch["word_starts"].numpy()
    for i in range(windows):
        for j in np.flatnonzero(labels[i] >= 0):
            hard -= np.log(softmax(outputs["logits"].numpy()[i, j]))[labels[i, j]]
            tokens += 1
        for word, start in enumerate(starts[i][starts[i] > 0]):
            s = outputs["logits"].numpy()[i, start]
            z = theirs["log_probabilities"][i, word] if teacher == "crf" else theirs["logits"][i, start]
            np.testing.assert_allclose(outputs["teacher_logits"][i, word], z, atol=1e-5)
            p, q = softmax(z / 3), softmax(s / 3)
            if kind == "mse":
                soft += ((z - s) ** 2).sum() / 2
            else:
                soft += 9 * (-(p * np.log(q)).sum() if kind == "xent" else (p * np.log(p / q)).sum())
            words += 1
    # 14 words have tags, two have none; every word is answered for once.
    assert words == 16 and (tokens == 14 if not all_pieces else tokens >= 14)
    found = {name: float(total / weight) for name, (total, weight) in app.losses(batch, outputs, EVALUATION).items()}
    factors = (1, 0.7) if kind == "mse" else (0.4, 0.6)
    assert found == pytest.approx(
        {"ce_loss": factors[0] * hard / tokens, "kd_loss": factors[1] * soft / words}, rel=1e-5
    )
    with tf.GradientTape() as tape:
        losses = app.losses(batch, app.forward(batch, training=True), EVALUATION)
        value = tf.add_n([loss.sum for loss in losses.values()])
    assert all(g is None for g in tape.gradient(value, app.teacher.frozen.app.model.weights))


def test_an_export_and_a_student_can_teach(teachers, tiny, tmp_path):
    (tmp_path / "export" / "assets.extra").mkdir(parents=True)
    export = save_export(teachers["plain"], tmp_path / "export")
    middle = save_labeler(tmp_path / "middle", {**tiny, "num_layers": 1}, STUDENT, distillation={"kd_loss": "none"})
    for teacher, run in ((export, teachers["plain"]), (middle, middle)):
        app = student(teacher, {**tiny, "num_layers": 1})
        table = encoded(app, tmp_path, ROWS, SCHEMA)
        batch = batch_of(table)
        if run is middle:
            app.build_model()
            # What predicts reads nothing of the teacher.
            inputs = {name: tf.constant(x) for name, x in app.model_inputs(table.batch([0, 1])).items()}
            assert app.forward(inputs).keys() == {"logits", "tags", "log_probabilities"}
            continue
        expected = outputs_of(run, {name: batch[name] for name in app.specs()})["logits"]
        starts = batch["word_starts"].numpy()
        np.testing.assert_allclose(app.teacher(batch)[0, 1], expected[0, starts[0, 1]], atol=1e-5)


def test_rows_without_tags_are_counted_and_only_taken_with_a_teacher(teachers, tiny, tmp_path, capfd):
    app = student(teachers["plain"], tiny)
    table = encoded(app, tmp_path, ROWS, SCHEMA)
    app.on_train_table(table)
    assert "1 of 3 training rows have no tags: they learn from the teacher alone" in capfd.readouterr().err
    assert app.target.report(tmp_path, table, {}) == []
    with pytest.raises(DataError, match="wrong number of tags: 1 for 2 words"):
        encoded(app, tmp_path, [("bad film", "O")], SCHEMA)
    plain, bad = student(None, tiny, {"kd_loss": "none"}), BadRows("skip")
    assert encoded(plain, tmp_path, ROWS, SCHEMA, bad=bad).row_count == 2
    assert bad.reasons == {"wrong number of tags": 1}


def test_metrics_leave_out_what_has_no_tags(capfd):
    def logits(*tags: int) -> np.ndarray:
        return 4.0 * np.eye(3, dtype=np.float32)[list(tags)]

    def update(evaluator: StudentTagEvaluator, *rows: tuple[list[int], list[int], list[int]]) -> None:
        batch = {
            "label_id": np.array([[-1, *true, -1] for true, *_ in rows]),
            "word_starts": np.array([range(1, len(true) + 1) for true, *_ in rows]),
        }
        mine = np.stack([logits(*tags) for _, tags, _ in rows])
        outputs = {"tags": mine.argmax(-1), "log_probabilities": np.log(softmax(mine))}
        evaluator.update(batch, {**outputs, "teacher_logits": np.stack([logits(*tags) for *_, tags in rows])})

    first, second, whole = (StudentTagEvaluator(TAGS) for _ in range(3))
    # The student is right at 3 of 4 words, its teacher at all; they agree at 3. The row without tags is left out.
    update(first, ([1, 2], [1, 0], [1, 2]), ([-1, -1], [0, 0], [1, 1]))
    update(second, ([0, 0], [0, 0], [0, 0]))
    for part in (first, second):
        whole.merge(part.state())
    found = whole.result()
    expected = {"accuracy": 0.75, "f1": 0.0, "teacher_accuracy": 1.0, "teacher_f1": 1.0, "agreement": 0.75}
    assert {name: found[name] for name in expected} == expected
    assert whole.report()["unlabelled_rows"] == 1 and whole.report()["rows"] == 2
    assert "1 rows of the evaluation table have no tags and are not measured" in capfd.readouterr().err
    blind = StudentTagEvaluator(TAGS)
    update(blind, ([-1, -1], [0, 0], [1, 1]))
    with pytest.raises(DataError, match="no row of the evaluation table has tags"):
        blind.result()
    assert "agreement" not in StudentTagEvaluator(TAGS).result()


def test_teachers_that_do_not_fit_are_refused_in_one_line(teachers, tiny, tmp_path):
    make_tiny(tmp_path / "strange")
    words = (tmp_path / "strange" / "vocab.txt").read_text().splitlines()
    (tmp_path / "strange" / "vocab.txt").write_text("\n".join([*words[:5], *words[:4:-1]]) + "\n")
    strange = {"pretrain_model_name_or_path": str(tmp_path / "strange")}
    classifier = save_teacher(tmp_path / "classifier", "text_classify_bert", tiny)
    plain = teachers["plain"]
    for teacher, model, settings, data, kind, expected in (
        (None, tiny, {}, {}, ConfigError, "kd_loss=mse needs a teacher; give the run folder of one"),
        (classifier, tiny, {}, {}, ModelError, "gives words no tags; got 'text_classify_bert'"),
        (plain, tiny, {}, {"label_enumerate_values": "B-X,O,I-X"}, ModelError, "has other tags, or in another order"),
        (plain, {**tiny, "unit": "character"}, {}, {}, ModelError, "gives every word a tag, and this run every char"),
        (plain, strange, {}, {}, ModelError, "with another vocabulary than this run"),
        (teachers["crf"], tiny, {}, {}, ConfigError, "has a CRF, .*; set distillation.kd_loss=kld or xent"),
    ):
        with pytest.raises(kind, match=expected) as caught:
            student(teacher, model, settings, data=data)
        assert "\n" not in str(caught.value)
