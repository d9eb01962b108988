"""Several tasks on one encoder: their tables, losses and metrics against NumPy, what is predicted and served."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from training import without_export

from appzoo import jobs
from appzoo.cli.checks import check_job
from appzoo.cli.reader import JobReader
from appzoo.jobs.tables import load_rows
from appzoo.multi_task.app import MultiTask
from appzoo.multi_task.config import MultiTaskConfig
from appzoo.multi_task.metrics import TasksEvaluator
from easytransfer.app.targets.labels import Score, SingleLabel
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.metrics.classification import ClassificationEvaluator
from easytransfer.train.step import EVALUATION

FILES = {
    "films.tsv": "a good film of the day\tpos\na bad film\tneg\nnot good\tneg\ngood\tpos\n",
    "films_dev.tsv": "no good time\tneg\na good day for it\tpos\n",
    "pairs.csv": "one,other,same\na good day,good day,1\na bad book,the film,0\n",
    "pairs_dev.csv": "one,other,same\nthe book,our book,1\n",
    "stars.jsonl": '{"text": "so good", "stars": 5}\n{"text": "not bad", "stars": 2.5}\n{"text": "bad", "stars": 1}\n',
    "stars_dev.jsonl": '{"text": "good time", "stars": 4}\n{"text": "the film is bad", "stars": 1.5}\n',
}
TASKS = {
    "mood": {
        "train_table": "films.tsv", "eval_table": "films_dev.tsv", "input_schema": "text:str:1,label:str:1",
        "first_sequence": "text", "label_name": "label", "label_enumerate_values": "neg,pos",
    },
    "same": {
        "train_table": "pairs.csv", "eval_table": "pairs_dev.csv", "first_sequence": "one", "second_sequence": "other",
        "label_name": "same", "label_enumerate_values": "0,1",
    },
    "stars": {
        "train_table": "stars.jsonl", "eval_table": "stars_dev.jsonl", "first_sequence": "text", "label_name": "stars",
        "label_enumerate_values": "none", "weight": 0.5,
    },
}  # fmt: skip


def write_files() -> None:
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")


@pytest.fixture
def tables(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files()
    return tmp_path


def values_of(tiny_model: Path, tasks: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    data = {"tasks": TASKS if tasks is None else tasks, "sequence_length": 12, **sections.pop("data", {})}
    model = {"pretrain_model_name_or_path": str(tiny_model), "dropout_rate": 0.0}
    return {"model_name": "multi_task", "data": data, "model": model, **sections}


def new_app(tiny_model: Path, tasks: dict[str, Any] | None = None, **sections: Any) -> MultiTask:
    return MultiTask(MultiTaskConfig.model_validate(values_of(tiny_model, tasks, **sections)))


def changed(task: str, **values: Any) -> dict[str, Any]:
    found = {**TASKS[task], **values}
    return {**TASKS, task: {name: value for name, value in found.items() if value is not None}}


# Settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "data", "message"),
    [
        ({"mood": TASKS["mood"]}, {}, "two tasks or more"),
        ({**TASKS, "Mood": TASKS["mood"]}, {}, "a-z, 0-9 and _ that begins with a letter; got 'Mood'"),
        ({**TASKS, "mood_film": TASKS["mood"]}, {}, "'mood_film' cannot be told from 'mood'"),
        ({**TASKS, "predict_ids": TASKS["mood"]}, {}, "'predict_ids' cannot be told from 'predict_ids'"),
        (changed("mood", eval_table=None), {}, "the task mood has no eval_table"),
        (changed("mood", first_sequence=None), {}, "the task mood has no first_sequence; give it in data.tasks, or"),
        (changed("stars", label_enumerate_values=None), {}, "the task stars has no label_enumerate_values"),
        (changed("mood", label_enumerate_values="auto"), {}, "names, a file or none; got 'auto'"),
        (changed("mood", wieght=2), {}, r"data.tasks.mood.wieght: .*; did you mean weight"),
        (changed("mood", weight=0), {}, r"data.tasks.mood.weight: .* greater than 0; got 0"),
        (TASKS, {"train_table": "films.tsv"}, "data.train_table has no meaning beside data.tasks"),
        (TASKS, {"label_name": "label"}, "label_name is given for all tasks and for the task mood; give one"),
        (TASKS, {"task": "moods"}, "data.task is none of the tasks; got 'moods'; accepted: mood, same, stars"),
    ],
)
def test_settings_that_leave_something_open_are_refused(tasks, data, message, tiny_model):
    with pytest.raises(ValueError, match=message):
        MultiTaskConfig.model_validate(values_of(tiny_model, tasks, data=data))


def test_what_is_for_one_task_is_refused(tiny_model, tables):
    with pytest.raises(ValueError, match="train.class_weights is for one task; remove it"):
        MultiTaskConfig.model_validate(values_of(tiny_model, train={"class_weights": "balanced"}))
    numbers = {name: {**task, "label_enumerate_values": "none"} for name, task in TASKS.items()}
    with pytest.raises(ValueError, match="label_smoothing is for tasks with classes"):
        MultiTaskConfig.model_validate(values_of(tiny_model, numbers, train={"label_smoothing": 0.1}))
    with pytest.raises(ConfigError, match="data.task is for evaluate and predict"):
        new_app(tiny_model, data={"task": "mood"}).load_assets(None)
    with pytest.raises(ConfigError, match="a table has token ids"):
        new_app(tiny_model, changed("mood", input_schema="input_ids:int:4,label_id:int:1")).load_assets(None)
    with pytest.raises(ModelError, match="has no tasks.json.*take a run of multi_task"):
        new_app(tiny_model).load_assets(tiny_model)


def test_the_command_line_names_tables_and_weights(tables, tiny_model):
    values = values_of(tiny_model)
    Path("job.yaml").write_text(json.dumps(values), encoding="utf-8")
    words = ["--config=job.yaml", "--checkpointDir=run", "--set", "data.tasks.mood.weight=2"]
    job = JobReader("train", words, []).read()
    assert job.config.data.train_table == "films.tsv,pairs.csv,stars.jsonl"
    assert [task.weight for task in job.config.data.tasks.values()] == [2.0, 1.0, 0.5]
    check_job(job)
    again = JobReader("train", ["--config=job.yaml", "--checkpointDir=run", "--evalTable=films_dev.tsv"], [])
    with pytest.raises(ConfigError, match="data.eval_table has no meaning beside data.tasks"):
        again.read()
    text = ["--modelName=multi_task", "--checkpointDir=run", "--sequenceLength=12", f"--tasks={json.dumps(TASKS)}"]
    assert JobReader("train", text, []).read().config.data.tasks.keys() == TASKS.keys()
    with pytest.raises(ConfigError, match="mode train needs.*--tasks"):
        check_job(JobReader("train", ["--modelName=multi_task", "--checkpointDir=run"], []).read())


# Tables ------------------------------------------------------------------------------------------------------


def test_every_table_is_read_by_its_own_columns(tables, tiny_model):
    app = new_app(tiny_model)
    app.load_assets(None)
    rows = load_rows(app, app.config.training_tables(), True)
    assert (rows.count.read, rows.count.rejected) == (9, 0)
    columns = rows.encoded.columns
    assert columns["task_id"].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert columns["label_id"].tolist() == [1, 0, 0, 1, 1, 0, 5, 2.5, 1]
    assert [columns["task"][row] for row in (0, 4, 8)] == ["mood", "same", "stars"]
    tokenizer = app.encoder.tokenizer
    for row, texts in ((0, ["a good film of the day"]), (5, ["a bad book", "the film"]), (7, ["not bad"])):
        expected = tokenizer.encode(*([text] for text in texts), max_length=12)
        np.testing.assert_array_equal(columns["input_ids"][row], expected.input_ids[0])
        np.testing.assert_array_equal(columns["segment_ids"][row], expected.segment_ids[0])


def test_a_joined_table_has_all_columns_and_is_read_in_parts_like_any_other(tables, tiny_model):
    data = new_app(tiny_model).config.data
    table = open_table("pairs.csv,stars.jsonl", schema=None, data=data)
    assert table.schema.names == ["one", "other", "same", "text", "stars"] and table.row_count() == 5
    first, second = table.chunks()
    assert first.columns["text"] == ["", ""] and second.columns["one"] == ["", "", ""]
    assert (first.columns["other"], second.columns["text"][1]) == (["good day", "the film"], "not bad")
    shards = [chunk for rank in (0, 1) for chunk in table.chunks(shard=(rank, 2))]
    assert sorted(np.concatenate([chunk.index for chunk in shards]).tolist()) == [0, 1, 2, 3, 4]
    assert [chunk.index.tolist() for chunk in table.chunks(start=1, stop=4)] == [[1], [2, 3]]


def test_bad_rows_are_counted_and_say_where_they_are(tables, tiny_model):
    app = new_app(tiny_model, data={"bad_rows": "skip"})
    app.load_assets(None)
    Path("films.tsv").write_text("a good film\tpos\na film\tfine\n")
    Path("stars.jsonl").write_text('{"text": "good", "stars": "many"}\n{"text": "bad", "stars": 2}\n')
    with pytest.raises(DataError, match="films.tsv:2: column 'label': unknown label: 'fine'; known: neg, pos"):
        load_rows(app, app.config.training_tables(), True)
    rows = load_rows(app, app.config.training_tables(), True, jobs.tables.job_bad_rows(app.config.data, None))
    assert (rows.count.read, rows.count.accepted, rows.count.rejected) == (6, 4, 2)
    assert rows.encoded.columns["task_id"].tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        # Another table has a column of that name.
        (changed("stars", first_sequence="one"), "column 'one' is not in table stars.jsonl"),
        (changed("same", label_name="label"), "column 'label' is not in table pairs.csv"),
        (changed("stars", train_table="films.tsv"), "films.tsv is a table of the tasks mood and stars"),
    ],
)
def test_tables_that_do_not_fit_their_task_are_refused(tasks, message, tables, tiny_model):
    app = new_app(tiny_model, tasks)
    app.load_assets(None)
    with pytest.raises(ConfigError, match=message):
        load_rows(app, app.config.training_tables(), True)


def test_a_table_without_usable_rows_is_told(tables, tiny_model):
    app = new_app(tiny_model)
    app.load_assets(None)
    Path("pairs.csv").write_text("one,other,same\n")
    with pytest.raises(DataError, match="the training table of the task same has no usable row"):
        app.sampler(load_rows(app, app.config.training_tables(), True).encoded)
    Path("more.tsv").write_text("a good day\tpos\n")
    with pytest.raises(ConfigError, match="more.tsv is no table of a task; accepted: .*--task=NAME"):
        load_rows(app, "more.tsv", True)


# Losses and metrics ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learner(tiny_model, tmp_path_factory) -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tasks"))
        write_files()
        app = new_app(tiny_model, train={"label_smoothing": 0.1}, sampling={"temperature": 2.0})
        app.load_assets(None)
        table = load_rows(app, app.config.training_tables(), True).encoded
        app.on_train_table(table)
        app.build_model()
        folder = Path.cwd() / "assets"
        folder.mkdir()
        app.save_assets(folder)
    random = np.random.default_rng(3)
    app.model.set_weights([w + random.normal(0, 0.1, w.shape).astype(np.float32) for w in app.model.get_weights()])
    return SimpleNamespace(app=app, table=table, folder=folder)


def batch_of(table, rows, size=None) -> dict[str, tf.Tensor]:
    batch = table.batch(np.asarray(rows), size=size)
    return {name: tf.constant(value) for name, value in batch.items() if value.dtype != object}


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def test_losses_are_those_of_numpy_each_by_the_rows_of_its_task(learner):
    app, batch = learner.app, batch_of(learner.table, range(9), size=11)
    outputs = app.forward(batch)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "mood_logits": (11, 2), "same_logits": (11, 2), "stars_logits": (11, 1)
    }  # fmt: skip
    # Smoothed labels have 0.95 of their class and 0.05 of the other.
    mood = log_softmax(outputs["mood_logits"].numpy()[:4].astype(float))
    same = log_softmax(outputs["same_logits"].numpy()[4:6].astype(float))
    stars = outputs["stars_logits"].numpy()[6:9, 0].astype(float)
    smooth = np.array([[0.95, 0.05], [0.05, 0.95]])
    expected = {
        "mood_loss": -(smooth[[1, 0, 0, 1]] * mood).sum(axis=1).mean(),
        "same_loss": -(smooth[[1, 0]] * same).sum(axis=1).mean(),
        "stars_loss": 0.5 * ((stars - [5, 2.5, 1]) ** 2).mean(),
    }
    losses = app.losses(batch, outputs, EVALUATION)
    assert {name: float(total / weight) for name, (total, weight) in losses.items()} == pytest.approx(
        expected, rel=1e-5
    )
    assert [float(weight) for _, weight in losses.values()] == [4, 2, 3]


def test_shares_of_a_batch_add_up_and_a_batch_of_one_task_teaches_no_other_head(learner):
    app, batch = learner.app, batch_of(learner.table, [6, 7, 8])
    outputs = app.forward(batch)

    def losses(*rows: int) -> dict[str, Any]:
        shares = ({name: tf.gather(value, rows) for name, value in each.items()} for each in (batch, outputs))
        return app.losses(*shares, EVALUATION)

    whole, first, second = losses(0, 1, 2), losses(0, 2), losses(1)
    for name, (total, weight) in whole.items():
        assert float(first[name].sum + second[name].sum) == pytest.approx(float(total), rel=1e-5)
        assert float(first[name].weight + second[name].weight) == float(weight)
    assert [float(loss.weight) for loss in whole.values()] == [0, 0, 3]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total = tf.add_n([loss.sum for loss in app.losses(batch, outputs, EVALUATION).values()])
    gradients = tape.gradient(total, outputs)
    assert [bool(np.any(gradients[name])) for name in ("mood_logits", "same_logits", "stars_logits")] == [0, 0, 1]


def test_the_sampler_has_the_rows_of_the_tasks_and_their_rates(learner, capfd):
    sampler = learner.app.sampler(learner.table)
    assert [rows.tolist() for rows in sampler.rows] == [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
    np.testing.assert_allclose(sampler.rates, np.sqrt([4, 2, 3]) / np.sqrt([4, 2, 3]).sum())
    said = "share of the updates by task: mood 0.389, same 0.275, stars 0.337"  # 2, 1.414 and 1.732 of 5.146
    assert said in capfd.readouterr().err


def test_metrics_of_tasks_and_their_mean():
    targets = {"kind": SingleLabel(LabelMap(["no", "yes"])), "size": Score()}
    numbers = {"kind": 0, "size": 1}
    batch = {"task_id": np.array([0, 1, 0, 1, 0, 1, 0]), "label_id": np.float32([1, 1, 0, 2, 1, 4, 1])}
    kinds = np.float32([[0, 1], [9, 9], [2, 1], [9, 9], [3, 0], [9, 9], [0, 2]])
    sizes = np.float32([[9], [2], [9], [3], [9], [10], [9]])
    outputs = {"kind_logits": kinds, "size_logits": sizes}
    whole = TasksEvaluator(numbers, targets)
    whole.update(batch, outputs)
    found = whole.result()
    # Classes 1 0 1 1 are answered as 1 0 0 1; numbers 1 2 4 as 2 3 10.
    assert (found["kind_accuracy"], found["size_mse"]) == (0.75, pytest.approx((1 + 1 + 36) / 3))
    x, y = np.array([1, 2, 4]) - 7 / 3, np.array([2, 3, 10]) - 5
    pearson = x @ y / np.sqrt((x @ x) * (y @ y))
    assert found["size_pearson"] == pytest.approx(pearson)
    assert found["mean_score"] == pytest.approx((0.75 + pearson) / 2)
    assert "mean_macro_f1" not in found and whole.main_metric == "mean_score"
    assert whole.report()["rows"] == 7 and whole.report()["tasks"].keys() == {"kind", "size"}
    shares = [TasksEvaluator(numbers, targets) for _ in range(2)]
    for share, rows in zip(shares, (slice(0, 2), slice(2, 7)), strict=True):
        share.update(
            {name: value[rows] for name, value in batch.items()}, {name: value[rows] for name, value in outputs.items()}
        )
    merged = TasksEvaluator(numbers, targets)
    for share in shares:
        merged.merge(share.state())
    assert merged.result() == pytest.approx(found)


def test_rows_of_a_task_without_results_have_no_part():
    targets = {"kind": SingleLabel(LabelMap(["no", "yes"])), "size": Score()}
    evaluator = TasksEvaluator({"kind": 0, "size": 1}, targets)
    evaluator._evaluators["kind"] = ClassificationEvaluator(["no", "yes"], with_auc=False)
    rows = {"task_id": np.array([0, 1, 1]), "label_id": np.float32([1, 2, 3])}
    evaluator.update(rows, {"kind_logits": np.zeros([3, 2], np.float32), "size_logits": np.float32([[9], [4], [5]])})
    parts, results = evaluator.row_parts()
    assert parts.tolist() == [-1, 0, 0] and list(results) == ["size"]
    assert results["size"].arrays["predicted"].reshape(-1).tolist() == [4, 5]


def test_the_mean_of_macro_f1_is_there_for_classes_and_tasks_without_rows_are_left_out():
    targets = {name: SingleLabel(LabelMap(["no", "yes"])) for name in ("a", "b")}
    evaluator = TasksEvaluator({"a": 0, "b": 1}, targets)
    assert np.isnan(evaluator.result()["mean_score"])
    rows = {"task_id": np.zeros(2, np.int32), "label_id": np.float32([0, 1])}
    evaluator.update(rows, {name: np.float32([[1, 0], [1, 0]]) for name in ("a_logits", "b_logits")})
    found = evaluator.result()
    # F1 of the class that is always answered is 2/3, that of the other 0.
    assert found["mean_macro_f1"] == pytest.approx(1 / 3) and found["mean_score"] == 0.5
    assert np.isnan(found["b_accuracy"])


# Answers -----------------------------------------------------------------------------------------------------


def test_rows_of_several_tasks_have_the_answers_of_their_heads(learner):
    app, table = learner.app, learner.table
    outputs = {name: value.numpy() for name, value in app.forward(batch_of(table, range(9))).items()}
    found = app.postprocess(outputs, table)
    assert tuple(found) == app.output_columns() == ("task", "predictions", "probabilities", "logits")
    assert found["task"] == ["mood"] * 4 + ["same"] * 2 + ["stars"] * 3
    names = [["neg", "pos"][i] for i in outputs["mood_logits"][:4].argmax(1)]
    assert found["predictions"][:4] == names
    np.testing.assert_allclose(found["probabilities"][4], np.exp(log_softmax(outputs["same_logits"][4])), rtol=1e-5)
    assert found["predictions"][8] == str(outputs["stars_logits"][8, 0]) and found["probabilities"][8] == []


def test_signatures_answer_like_the_heads(learner):
    app = learner.app
    found = app.signatures(learner.folder)
    assert list(found) == ["serving_default", "predict_ids", "mood", "same", "stars", "mood_labels", "same_labels"]
    assert {name: set(each.inputs) for name, each in found.items() if name != "predict_ids"} == {
        "serving_default": {"text"}, "mood": {"text"}, "same": {"text_a", "text_b"}, "stars": {"text"},
        "mood_labels": {"class_id"}, "same_labels": {"class_id"},
    }  # fmt: skip
    assert found["mood_labels"].function(class_id=tf.constant([[1, 0]]))["label"].numpy().tolist() == [[b"pos", b"neg"]]
    first, second = tf.constant(["a good film", "bad"]), tf.constant(["the day", "a very bad time"])
    every = found["serving_default"].function(text=first)
    named = {f"mood_{output}" for output in ("probabilities", "label", "score", "top5", "top5_score")}
    assert set(every) == {*named, "stars_score"}
    for name, raw in (("mood", (first,)), ("same", (first, second)), ("stars", (first,))):
        answer = found[name].function(**dict(zip(found[name].inputs, raw, strict=True)))
        texts = [[text.decode() for text in each.numpy()] for each in raw]
        tokens = app.encoder.tokenizer.encode(*texts, max_length=12)
        width = int(tokens.input_ids.lengths.max())
        batch = {
            "input_ids": tokens.input_ids.padded([0, 1], width),
            "segment_ids": tokens.segment_ids.padded([0, 1], width),
            "input_mask": (np.arange(width) < tokens.input_ids.lengths[:, None]).astype(np.int32),
        }
        logits = app.forward({key: tf.constant(value) for key, value in batch.items()})[f"{name}_logits"].numpy()
        expected = logits[:, 0] if name == "stars" else np.exp(log_softmax(logits)).max(axis=1)
        np.testing.assert_allclose(answer["score"], expected, atol=1e-5)
        if name != "same":
            np.testing.assert_allclose(every[f"{name}_score"], answer["score"], atol=1e-6)


# Jobs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, without_export():
        patch.chdir(folder)
        write_files()
        train = {"batch_size": 4, "num_epochs": 2, "learning_rate": 1e-3, "log_step_count_steps": 1}
        values = values_of(tiny_model, train=train, checkpoint_dir="run")
        jobs.train(MultiTaskConfig.model_validate(values))
    return folder


def run_job(mode: str, *words: str) -> dict[str, Any]:
    job = JobReader(mode, ["--checkpointPath=run", *words], []).read()
    check_job(job)
    return getattr(jobs, mode)(job.config)


def test_a_run_is_evaluated_on_all_tasks_or_on_one(trained, monkeypatch):
    monkeypatch.chdir(trained)
    report = json.loads(Path("run/report.json").read_text())
    assert report["metric"] == "mean_score" and report["tasks"].keys() == TASKS.keys()
    assert json.loads(Path("run/tasks.json").read_text()) == {"mood": ["neg", "pos"], "same": ["0", "1"], "stars": None}
    # Each task has a section of the page of wrong rows, with its own columns, and its own parts of rows.
    rows = report["slices"]
    labels = {part["name"]: part["rows"] for part in rows if part["by"] == "mood, label"}
    assert labels == {"neg": 1, "pos": 1} and {part["metric"] for part in rows if part["by"].startswith("stars")} <= {
        "mae"
    }
    page = Path("run/wrong_rows.html").read_text()
    stars = page[page.index(">stars</h2>") :]
    assert "2 of 2 evaluation rows have another number than the true one" in stars and "good time" in stars
    assert 'scope="col">one</th>' not in stars and "Wrong rows" in Path("run/README.md").read_text()
    # The training tables are not needed.
    for name in ("films.tsv", "pairs.csv", "stars.jsonl"):
        Path(name).rename(f"{name}.away")
    try:
        found = run_job("evaluate")
        assert (found["read"], found["accepted"], found["rejected"]) == (5, 5, 0)
        # With one row there is no area under a curve.
        in_training = {name: value for name, value in report["metrics"].items() if name != "same_auc"}
        assert {name: found["metrics"][name] for name in in_training} == pytest.approx(in_training, abs=1e-5)
        one = run_job("evaluate", "--task=stars")
        assert one["read"] == 2
        assert one["metrics"]["mean_score"] == pytest.approx(report["metrics"]["stars_pearson"], abs=1e-5)
        assert not any(name.startswith(("mood", "same")) for name in one["metrics"])
        again = run_job("evaluate", "--task=mood", "--inputTable=films_dev.tsv")
        assert again["metrics"]["mood_accuracy"] == pytest.approx(report["metrics"]["mood_accuracy"])
    finally:
        for name in ("films.tsv", "pairs.csv", "stars.jsonl"):
            Path(f"{name}.away").rename(name)


def test_a_dry_run_sees_the_first_rows_alone(tables, tiny_model, monkeypatch):
    monkeypatch.setattr(importlib.import_module("appzoo.jobs.train"), "DRY_RUN_ROWS", 2)
    values = values_of(tiny_model, checkpoint_dir="run", runtime={"dry_run": True})
    found = jobs.train(MultiTaskConfig.model_validate(values))
    assert found["data"]["train"]["accepted"] < 9 and 0 < found["loss"] < 2 and found["metric"] == "mean_score"


def test_tables_are_predicted_by_the_task_that_is_named_or_by_their_own(trained, monkeypatch):
    monkeypatch.chdir(trained)
    Path("new.tsv").write_text("1\ta good film\n2\tvery bad\n")
    words = ["--inputTable=new.tsv", "--inputSchema=id:int:1,text:str:1", "--appendCols=id"]
    found = run_job("predict", "--task=mood", *words, "--outputTable=mood.jsonl")
    assert found["columns"] == ["predictions", "probabilities", "logits", "id"] and found["written"] == 2
    rows = [json.loads(line) for line in Path("mood.jsonl").read_text().splitlines()]
    assert {row["predictions"] for row in rows} <= {"neg", "pos"} and [row["id"] for row in rows] == [1, 2]
    numbers = run_job("predict", "--task=stars", *words, "--outputTable=stars.jsonl.out.jsonl")
    assert numbers["columns"] == ["predictions", "logits", "id"]
    with pytest.raises(ConfigError, match="new.tsv is no table of a task"):
        run_job("predict", "--inputTable=new.tsv", "--outputTable=never.jsonl")
    command = json.loads(Path("run/report.json").read_text())["commands"]["predict a table"]
    assert "--inputTable=films_dev.tsv,pairs_dev.csv,stars_dev.jsonl" in command
    tables = "films_dev.tsv,pairs_dev.csv,stars_dev.jsonl"
    every = run_job("predict", f"--inputTable={tables}", "--outputTable=every.jsonl", "--appendCols=text,one")
    assert (every["read"], every["written"]) == (5, 5)
    rows = [json.loads(line) for line in Path("every.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == ["mood", "mood", "same", "stars", "stars"]
    assert [(row["text"], row["one"]) for row in rows[1:4]] == [
        ("a good day for it", ""), ("", "the book"), ("good time", "")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="mode predict needs --inputTable"):
        run_job("predict", "--outputTable=never.jsonl")


@pytest.mark.slow  # two more processes
def test_two_workers_learn_what_one_does(tables, tiny_model):
    # Each worker draws the units it drops.
    steady = Path(shutil.copytree(tiny_model, "steady-bert"))
    config = json.loads((steady / "config.json").read_text())
    dropped = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    assert dropped.keys() <= config.keys()
    (steady / "config.json").write_text(json.dumps({**config, **dropped}), encoding="utf-8")
    train = {"num_epochs": 2, "learning_rate": 0.05, "log_step_count_steps": 1, "optimizer_type": "sgd"}
    values = values_of(steady, train=train, sampling={"temperature": 3.0})
    Path("job.yaml").write_text(json.dumps(values), encoding="utf-8")
    weights = []
    for workers in (1, 2):
        program = "from appzoo.cli.main import main; raise SystemExit(main())"
        words = ["train", "--config=job.yaml", f"--checkpointDir=run{workers}", f"--workerCount={workers}"]
        done = subprocess.run(
            [sys.executable, "-c", program, *words, f"--batchSize={4 // workers}"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        last = json.loads(Path(f"run{workers}/checkpoint.json").read_text())["last"]
        weights.append(load_file(Path(f"run{workers}", last, "weights.safetensors")))
    one, two = weights
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)
