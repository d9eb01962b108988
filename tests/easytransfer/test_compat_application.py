"""`base_model` on numbers and on encoded tables: training, evaluation, prediction, export, refusals."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from easytransfer import base_model, keras, layers
from easytransfer.compat.datasets import CSVReader, CSVWriter, MemoryReader
from easytransfer.compat.evaluators import classification_eval_metrics, regression_eval_metrics
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.losses import mean_square_error, softmax_cross_entropy

SCHEMA = "x:float:3,name:str:1,y:float:1"


class Line(base_model):
    """y = x w; the true w is (1, 2, 3)."""

    def build_logits(self, features, mode=None):
        self.modes = [*getattr(self, "modes", []), str(mode)]
        return layers.Dense(1, name="line")(features["x"]), features.get("y")

    def build_loss(self, logits, labels):
        return mean_square_error(labels, logits)

    def build_eval_metrics(self, logits, labels):
        return regression_eval_metrics(logits, labels)

    def build_predictions(self, predict_output):
        values, labels = predict_output
        return {"value": values[:, 0]} | ({} if labels is None else {"label": labels})


def line_rows(count, seed=0, labelled=True):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).round(3)
    rows = [{"x": row.tolist(), "name": f"row{i}"} for i, row in enumerate(x)]
    return [row | {"y": float(x[i] @ (1, 2, 3))} for i, row in enumerate(rows)] if labelled else rows


def config(folder, **train):
    settings = {"learning_rate": 0.1, **train.pop("optimizer_config", {})}
    return {
        "preprocess_config": {"input_schema": SCHEMA, "label_name": "y", "output_schema": "value,name"},
        "train_config": {"model_dir": str(folder), "num_epochs": 12, **train, "optimizer_config": settings},
        "predict_config": {"predict_checkpoint_path": str(folder)},
        "evaluate_config": {"eval_checkpoint_path": str(folder)},
        "export_config": {"checkpoint_path": str(folder), "export_dir_base": str(folder) + "-export"},
    }


def reader(rows, **settings):
    schema = SCHEMA if "y" in rows[0] else SCHEMA.rpartition(",")[0]
    return MemoryReader(rows, schema, batch_size=8, **settings)


def train(folder, app=Line, **settings):
    made = app(config(folder, **settings), mode="train_and_evaluate")
    return made, made.run_train_and_evaluate(reader(line_rows(60), is_training=True), reader(line_rows(21, 1)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("line") / "run"
    return folder, *train(folder)


def test_training_learns_and_returns_plain_floats(trained):
    _, app, metrics = trained
    assert metrics["mse"] < 0.1 and metrics["steps"] == 96
    assert all(type(value) in (float, int) for value in metrics.values())
    assert app.modes[0] == "train" and "eval" in app.modes


def test_the_run_folder_is_complete(trained):
    folder, _, metrics = trained
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "done" and (folder / "DONE").exists() and (folder / "metrics.jsonl").exists()
    stored = json.loads((folder / "train_config.json").read_text())
    assert stored["user_defined"]["application"] == "Line"


def test_evaluation_of_the_checkpoint_gives_the_metrics_of_training(trained):
    folder, _, metrics = trained
    app = Line(config(folder), mode="evaluate")
    found = app.run_evaluate(reader(line_rows(21, 1)))
    assert found["mse"] == pytest.approx(metrics["mse"], rel=1e-6)
    # Whatever the batch size, the partial last batch counted once.
    whole = app.run_evaluate(MemoryReader(line_rows(21, 1), SCHEMA, batch_size=21), str(folder))
    assert whole["mse"] == pytest.approx(found["mse"], rel=1e-6)


def test_num_eval_steps_limits_the_evaluation(trained):
    folder, _, _ = trained
    values = config(folder)
    values["evaluate_config"]["num_eval_steps"] = 1
    few = Line(values, mode="evaluate").run_evaluate(reader(line_rows(21, 1)))
    first = Line(config(folder), mode="evaluate").run_evaluate(reader(line_rows(21, 1)[:8]))
    assert few["mse"] == pytest.approx(first["mse"], rel=1e-6)


def test_original_fake_label_is_not_needed_to_predict(trained):
    """Labels are None where there is no label column; the original needed one."""
    folder, _, _ = trained
    app = Line(config(folder), mode="predict")
    rows = line_rows(21, 2, labelled=False)
    batches = list(app.run_predict(reader(rows)))
    assert [len(batch["value"]) for batch in batches] == [8, 8, 5] and "label" not in batches[0]
    values = np.concatenate([batch["value"] for batch in batches])
    np.testing.assert_allclose(values, [np.dot(row["x"], (1, 2, 3)) for row in rows], atol=0.6)
    single = list(app.run_predict(reader(rows), yield_single_examples=True))
    assert [row["name"] for row in single] == [row["name"] for row in rows]
    np.testing.assert_array_equal([row["value"] for row in single], values)
    labelled = next(iter(app.run_predict(reader(line_rows(3)))))
    assert labelled["label"].shape == (3,)


def test_writer_gets_predictions_and_input_columns_in_order(trained, tmp_path):
    folder, _, _ = trained
    app = Line(config(folder), mode="predict")
    rows = line_rows(21, 2, labelled=False)
    output = tmp_path / "out.tsv"
    assert app.run_predict(reader(rows), CSVWriter(str(output), app.output_schema), str(folder)) is None
    written = [line.split("\t") for line in output.read_text().splitlines()]
    assert [row[1] for row in written] == [row["name"] for row in rows]
    with pytest.raises(ConfigError, match="output column 'vlaue' is not produced"):
        app.run_predict(reader(rows), CSVWriter(str(tmp_path / "other.tsv"), "vlaue"))
    assert not (tmp_path / "other.tsv").exists() and not list(tmp_path.glob("*tmp*")), "nothing half-written is left"


def test_a_seed_repeats_and_another_one_does_not(tmp_path):
    metrics = [train(tmp_path / name, num_epochs=1)[1] for name in "ab"]
    assert metrics[0] == metrics[1]
    values = config(tmp_path / "c", num_epochs=1) | {"runtime_config": {"seed": 7}}
    other = Line(values, mode="train_and_evaluate")
    found = other.run_train_and_evaluate(reader(line_rows(60), is_training=True), reader(line_rows(21, 1)))
    assert found["mse"] != metrics[0]["mse"]


def test_original_run_folder_of_another_configuration_is_refused(trained):
    """The original trained on top of it and kept the old train_config.json."""
    folder, _, _ = trained
    app = Line(config(folder, optimizer_config={"learning_rate": 0.3}), mode="train")
    with pytest.raises(ConfigError, match=r"another configuration \(train.learning_rate: 0.1 -> 0.3\)"):
        app.run_train(reader(line_rows(60)))
    with pytest.raises(ConfigError, match="model_dir is missing"):
        Line({}, mode="train").run_train(reader(line_rows(9)))


def test_training_alone_needs_no_metrics(tmp_path):
    class NoMetrics(Line):
        build_eval_metrics = base_model.build_eval_metrics

    app = NoMetrics(config(tmp_path / "run", num_epochs=1), mode="train")
    assert app.run_train(reader(line_rows(20))) == {"steps": 3}
    with pytest.raises(NotImplementedError, match="NoMetrics must define build_eval_metrics"):
        app = NoMetrics(config(tmp_path / "other"), mode="train_and_evaluate")
        app.run_train_and_evaluate(reader(line_rows(20)), reader(line_rows(20)))


def test_tvars_limits_what_is_trained(tmp_path):
    class Frozen(Line):
        def build_logits(self, features, mode=None):
            first, second = layers.Dense(3, name="first"), layers.Dense(1, name="second")
            value = second(first(features["x"]))
            self.tvars, self.kept = second.trainable_variables, first
            self.start = getattr(self, "start", None) or first.kernel.numpy().tolist()
            return value, features.get("y")

    app, metrics = train(tmp_path / "run", Frozen, num_epochs=1)
    assert app.kept.kernel.numpy().tolist() == app.start and app.kept.kernel.shape == (3, 3)

    class Strange(Line):
        def build_logits(self, features, mode=None):
            self.tvars = [tf.Variable(0.0)]
            return super().build_logits(features, mode)

    with pytest.raises(ConfigError, match="tvars names no variable of the model"):
        train(tmp_path / "strange", Strange)


def test_layers_may_be_attributes(tmp_path):
    class Made(Line):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.line = keras.layers.Dense(1)

        def build_logits(self, features, mode=None):
            return self.line(features["x"]), features.get("y")

    app, metrics = train(tmp_path / "run", Made)
    assert metrics["mse"] < 0.1
    again = Made(config(tmp_path / "run"), mode="evaluate").run_evaluate(reader(line_rows(21, 1)))
    assert again["mse"] == pytest.approx(metrics["mse"], rel=1e-6), "the layer is in the checkpoint"


def test_an_application_is_told_about_steps_evaluations_and_checkpoints(tmp_path):
    class Listening(Line):
        told = []

        def on_step_end(self, step, metrics):
            self.told.append(("step", step, metrics["loss"]))

        def on_eval_end(self, step, metrics):
            self.told.append(("eval", step, metrics["mse"]))

        def on_save(self, step, path):
            self.told.append(("save", step, path))

    train(tmp_path / "run", Listening, num_epochs=2, log_step_count_steps=4)
    kinds = [(kind, step) for kind, step, _ in Listening.told]
    assert {("step", 4), ("step", 8), ("eval", 8), ("save", 8), ("eval", 16), ("save", 16)} <= set(kinds)


@pytest.mark.parametrize(("path", "expected"), [(None, "no checkpoint has the weights"), ("none", "no checkpoint")])
def test_original_missing_checkpoint_is_not_replaced_by_random_weights(tmp_path, path, expected):
    app = Line({"preprocess_config": {"input_schema": SCHEMA}}, mode="predict")
    with pytest.raises(ModelError, match=expected):
        list(app.run_predict(reader(line_rows(3)), checkpoint_path=path and str(tmp_path / path)))


def test_checkpoint_of_another_model_is_refused(trained):
    class Wider(Line):
        def build_logits(self, features, mode=None):
            return layers.Dense(2, name="line")(features["x"])[:, :1], features.get("y")

    with pytest.raises(ModelError, match="line"):
        list(Wider(config(trained[0]), mode="predict").run_predict(reader(line_rows(3))))


def test_export_takes_numbers_and_lists(trained):
    folder, _, _ = trained
    app = Line(config(folder), mode="export")
    path = app.export_model()
    serve = tf.saved_model.load(path).signatures["serving_default"]
    x = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
    assert set(serve.structured_input_signature[1]) == {"x", "name"}
    found = serve(x=tf.constant(x), name=tf.constant(["a", "b"]))["value"].numpy()
    predicted = [{"x": row.tolist(), "name": "a"} for row in x]
    expected = next(iter(Line(config(folder), mode="predict").run_predict(reader(predicted))))["value"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_no_export_without_inputs_or_place():
    with pytest.raises(ConfigError, match="export_config.export_dir_base is missing"):
        Line({}, mode="export").export_model()
    with pytest.raises(ConfigError, match="set export_config.input_tensors_schema"):
        Line({"export_config": {"export_dir_base": "x"}}, mode="export").export_model()


def test_keys_that_would_hide_a_method_are_refused():
    with pytest.raises(ConfigError, match="the configuration key run is the name of a method"):
        Line({"model_config": {"run": 1}}, mode="train")


def test_an_empty_table_is_refused_before_a_model_is_built(tmp_path):
    (tmp_path / "empty.tsv").write_text("")
    app = Line(config(tmp_path / "run"), mode="train")
    with pytest.raises(DataError, match="empty.tsv"):
        app.run_train(CSVReader(str(tmp_path / "empty.tsv")))
    assert not hasattr(app, "modes") and (tmp_path / "run" / "FAILED").exists()


def test_wrong_return_values_are_explained(tmp_path):
    class Alone(Line):
        def build_logits(self, features, mode=None):
            return super().build_logits(features, mode)[0]

    with pytest.raises(ConfigError, match=r"build_logits must return \(logits, labels\)"):
        train(tmp_path / "run", Alone)


# Tables of token ids -------------------------------------------------------------------------------------------

IDS = "input_ids:int:4,input_mask:int:4,segment_ids:int:4,label_id:int:1"


def test_encoded_tables_need_no_text_column(tmp_path, tiny_model):
    """Mode `train` reads columns of ids; a preprocessor returns the columns in the order of the table."""
    from easytransfer.compat import model_zoo, preprocessors

    class Ids(base_model):
        def build_logits(self, features, mode=None):
            preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path)
            model = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
            ids, mask, segments, labels = preprocessor(features)
            assert ids.shape[1] == 4 and ids.dtype == tf.int64
            return layers.Dense(2)(model([ids, mask, segments], mode=mode)[1]), labels

        def build_loss(self, logits, labels):
            return softmax_cross_entropy(labels, 2, logits)

        def build_eval_metrics(self, logits, labels):
            return classification_eval_metrics(logits, labels, 2)

        def build_predictions(self, predict_output):
            return {"predictions": tf.argmax(predict_output[0], -1), "known": tf.fill([2], predict_output[1] is None)}

    (tmp_path / "ids.tsv").write_text("2,7,8,3\t1,1,1,1\t0,0,0,0\t1\n2,9,3,0\t1,1,1,0\t0,0,0,0\t0\n" * 4)
    settings = {
        "preprocess_config": {"input_schema": IDS},
        "model_config": {"pretrain_model_name_or_path": str(tiny_model)},
        "train_config": {"model_dir": str(tmp_path / "run"), "train_batch_size": 4},
    }
    table = str(tmp_path / "ids.tsv")
    app = Ids(settings, mode="train_and_evaluate")
    metrics = app.run_train_and_evaluate(CSVReader(table, is_training=True, batch_size=4), CSVReader(table))
    assert set(metrics) > {"py_accuracy", "py_macro_f1"}
    # Without the label column the place of the labels is None.
    (tmp_path / "plain.tsv").write_text("2,7,8,3\t1,1,1,1\t0,0,0,0\n" * 2)
    settings["preprocess_config"] = {"input_schema": IDS.rpartition(",")[0]}
    app = Ids(settings, mode="predict")
    batch = next(app.run_predict(CSVReader(str(tmp_path / "plain.tsv")), checkpoint_path=str(tmp_path / "run")))
    assert batch["known"].tolist() == [True, True]


# Scripts -------------------------------------------------------------------------------------------------------

SCRIPT = """
from easytransfer import base_model
from easytransfer.datasets import CSVReader
app = base_model()
print(len(CSVReader(app.train_input_fp)))
print([len(chunk) for chunk in CSVReader(app.train_input_fp).chunks()])
"""


@pytest.mark.parametrize(
    ("change", "code", "expected"),
    [
        ({}, 0, ""),
        ({"flags": ["--nosuchflag=1"]}, 2, "error: unknown flag --nosuchflag"),
        ({"flags": ["--badRows=skip"], "preprocess_config": {"input_schema": "x:int:1"}}, 0, ""),
        ({"schema_version": 2, "train_config": {"model_dri": "x"}}, 2, "error: unknown key train_config.model_dri"),
        ({"preprocess_config": {"input_schema": "x:int:1"}}, 3, "error: {table}:1: column 'x': not an integer"),
    ],
    ids=["fine", "flag", "remedy", "key", "row"],
)
def test_scripts_end_as_the_command_line_does(tmp_path, repository, change, code, expected):
    (tmp_path / "my_app.py").write_text(SCRIPT)
    table = tmp_path / "t.tsv"
    table.write_text("a\n")
    values = {"preprocess_config": {"input_schema": "x:str:1"}, "train_config": {"train_input_fp": str(table)}}
    change = dict(change)
    flags = change.pop("flags", [])
    for section, keys in change.items():
        values[section] = {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
    (tmp_path / "c.json").write_text(json.dumps(values))
    command = [sys.executable, str(tmp_path / "my_app.py"), "--mode=train", f"--config={tmp_path}/c.json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, env=_environment(repository))
    lines = done.stderr.strip().splitlines()
    assert done.returncode == code, done.stderr
    if code:
        assert len(lines) == 1 and lines[0].startswith(expected.format(table=table)), lines


def _environment(repository):
    import os

    return {**os.environ, "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""}
