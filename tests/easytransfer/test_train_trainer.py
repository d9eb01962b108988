"""Whole trainings of a small model: cadence, best checkpoint, early stopping, failure, precision, prediction."""

import numpy as np
import pytest
import tensorflow as tf
from toy_tasks import AdversarialWordTask, Recorder, WordTask, words_batches, words_table

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.errors import ConfigError, EasyTransferError, ModelError, ResourceError
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train import checkpoint
from easytransfer.train.step import Loss
from easytransfer.train.task import Task
from easytransfer.train.train_schedule import TrainSchedule, batch_signature
from easytransfer.train.trainer import Trainer


def trainer(run_dir=None, task=None, runtime=None, **train):
    settings = {"learning_rate": 0.01, "num_epochs": 2, "log_step_count_steps": 3, **train}
    runtime = RuntimeConfig(**(runtime or {}))
    return Trainer(task or WordTask(), TrainConfig(**settings), runtime, run_dir, Recorder())


class SlopeTask(Task):
    def build_model(self):
        x = keras.Input([], name="x")
        return keras.Model({"x": x}, {"y": keras.layers.Dense(1)(x[:, None])})

    def losses(self, batch, outputs, step):
        error = tf.square(outputs["y"][:, 0] - batch["y"]) * batch["example_weight"]
        return {"loss": Loss(tf.reduce_sum(error), tf.reduce_sum(batch["example_weight"]))}

    def evaluator(self):
        return SlopeError()


class SlopeError:
    main_metric, higher_is_better = "mse", False

    def __init__(self):
        self.errors = []

    def update(self, batch, outputs):
        self.errors.extend((outputs["y"][:, 0] - batch["y"]) ** 2)

    def result(self):
        return {"mse": float(np.mean(self.errors))}


def test_ten_lines_learn_a_line():
    x = np.linspace(-1, 1, 100, dtype=np.float32)
    table = EncodedTable({"x": x, "y": 3 * x - 1})
    fit = Trainer(SlopeTask(), TrainConfig(num_epochs=40, learning_rate=0.1))
    result = fit.fit(Batches(table, 10, shuffle=True), Batches(table, 32, shuffle=False))
    kernel, bias = (float(value.squeeze()) for value in fit.task.model.get_weights())
    assert abs(kernel - 3) < 0.01 and abs(bias + 1) < 0.01
    assert result.metrics["mse"] < 1e-3 and result.metrics["loss"] == pytest.approx(result.metrics["mse"], rel=1e-4)
    assert result.best_metrics["mse"] <= result.metrics["mse"] and result.steps == 400


def test_evaluates_and_saves_once_per_epoch_and_points_to_the_best(tmp_path):
    fit = trainer(tmp_path, num_epochs=2.5, keep_checkpoint_max=1)
    result = fit.fit(words_batches(), words_batches(20, shuffle=False, seed=1))
    report = fit.reporter
    # 7 batches an epoch, ceil(17.5) steps.
    assert list(report.evaluations) == list(report.saves) == [7, 14, 18] and result.steps == 18
    assert sorted(report.steps) == [3, 6, 7, 9, 12, 14, 15, 18] and report.status == "done"
    step = report.steps[3]
    rates = {"rows_per_s", "tokens_per_s", "step_s", "input_s"}
    assert {"loss", "lr", "grad_norm", "epoch"} | rates == set(step) and 0 <= step["input_s"] <= step["step_s"]
    assert step["epoch"] == pytest.approx(3 / 7) and step["lr"] < 0.01
    best = max(report.evaluations.values(), key=lambda metrics: metrics["accuracy"])["accuracy"]
    assert result.best_metrics["accuracy"] == best and report.evaluations[result.best_step]["is_best"]
    assert checkpoint.resolve(tmp_path) == result.best_path and checkpoint.steps(tmp_path)[-1] == 18
    assert set(checkpoint.steps(tmp_path)) == {result.best_step, 18}


def test_own_intervals_and_limits(tmp_path):
    fit = trainer(tmp_path, eval_every_steps=4, save_checkpoint_steps=5, keep_checkpoint_max=9, num_eval_steps=1)
    fit.fit(words_batches(), words_batches(20, batch_size=8, shuffle=False))
    report = fit.reporter
    assert list(report.evaluations) == [4, 8, 12, 14] and {5, 10, 14} <= set(report.saves)
    assert all(metrics["rows"] == 8 for metrics in report.evaluations.values())


def test_throttle_skips_all_but_the_first_and_the_final_evaluation():
    fit = trainer(eval_every_steps=2, throttle_secs=1000)
    fit.fit(words_batches(), words_batches(20, shuffle=False))
    assert list(fit.reporter.evaluations) == [2, 14]


class FallingTask(WordTask):
    """A task whose evaluations get worse after the second."""

    def evaluator(self):
        self.calls = getattr(self, "calls", 0) + 1
        return Fixed({1: 0.5, 2: 0.6}.get(self.calls, 0.4))


class Fixed:
    main_metric, higher_is_better = "score", True

    def __init__(self, value):
        self.value = value

    def update(self, batch, outputs):
        pass

    def result(self):
        return {"score": self.value}


def test_early_stopping_waits_for_its_patience(tmp_path):
    fit = trainer(tmp_path, FallingTask(), num_epochs=10, early_stopping_patience=3)
    result = fit.fit(words_batches(), words_batches(20, shuffle=False))
    assert result.steps == 5 * 7 and result.stopped_early and fit.reporter.status == "early_stopped"
    assert result.best_step == 14 and result.best_metrics["score"] == 0.6
    again = trainer(tmp_path, FallingTask(), num_epochs=10, early_stopping_patience=3)
    assert again.fit(words_batches(), words_batches(20, shuffle=False)).steps == 35


def test_another_metric_and_its_direction(tmp_path):
    fit = trainer(tmp_path, metric_for_best="loss", learning_rate=0.05)
    result = fit.fit(words_batches(), words_batches(shuffle=False))
    losses = {step: metrics["loss"] for step, metrics in fit.reporter.evaluations.items()}
    assert result.best_step == min(losses, key=losses.get)


def test_unknown_metric_is_found_before_training():
    fit = trainer(metric_for_best="acuracy")
    with pytest.raises(ConfigError, match="did you mean accuracy"):
        fit.fit(words_batches(), words_batches(20, shuffle=False))
    assert not fit.reporter.steps and fit.reporter.status == "failed"


def test_unknown_schedule_word_is_said():
    fit = trainer(lr_decay="polynomail", num_epochs=0.1)
    fit.fit(words_batches())
    assert "stays constant" in fit.reporter.messages[0]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_non_finite_loss_stops_with_the_offending_batch(tmp_path, accumulated):
    class Poisoned(WordTask):
        def losses(self, batch, outputs, step):
            poison = tf.where(batch["input_ids"][:, 0] == 39, float("nan"), 0.0)
            total, weight = super().losses(batch, outputs, step)["cross_entropy"]
            return {"cross_entropy": Loss(total + tf.reduce_sum(poison), weight)}

    table = words_table(64)
    table.columns["input_ids"].values[table.columns["input_ids"].offsets[:-1]] %= 39
    row = 37
    table.columns["input_ids"].values[table.columns["input_ids"].offsets[row]] = 39
    batches = Batches(table, 8, shuffle=True, seed=3)
    index = next(i for i, rows in enumerate(batches.rows(0)) if row in rows)
    fit = trainer(tmp_path, Poisoned(), num_accumulated_batches=accumulated, log_step_count_steps=100)
    with pytest.raises(EasyTransferError, match="not finite") as error:
        fit.fit(batches)
    step = index // accumulated + 1
    assert error.value.exit_code == 1 and f"step {step} " in str(error.value)
    saved = np.load(tmp_path / f"bad-batch-{step}.npz")
    name = "input_ids" if accumulated == 1 else f"{index % 2}/input_ids"
    np.testing.assert_array_equal(saved[name], list(batches.epoch(0))[index]["input_ids"])
    assert fit.reporter.status == "failed" and not checkpoint.steps(tmp_path)
    assert all(np.isfinite(value).all() for value in fit.task.model.get_weights())


def test_out_of_memory_names_settings_that_need_less():
    class Huge(WordTask):
        def losses(self, batch, outputs, step):
            def allocate(loss):
                raise MemoryError  # what an allocation that fails raises; TensorFlow's own retries for ten seconds

            loss, weight = super().losses(batch, outputs, step)["cross_entropy"]
            total = tf.ensure_shape(tf.py_function(allocate, [loss], tf.float32), loss.shape)
            return {"cross_entropy": Loss(total, weight)}

    fit = trainer(task=Huge(), num_accumulated_batches=3)
    with pytest.raises(ResourceError, match="batch_size=4 with num_accumulated_batches=6") as error:
        fit.fit(words_batches())
    assert error.value.exit_code == 5
    with pytest.raises(ResourceError, match="eval_batch_size"):
        fit.evaluate(words_batches())


def test_every_row_once_per_epoch_in_both_orders_of_looking():
    batches = words_batches(50, batch_size=8)
    plan = TrainSchedule.of(batches.steps_per_epoch, TrainConfig(num_epochs=2.2, num_accumulated_batches=3))
    assert (plan.total_batches, plan.total_steps) == (16, 6)
    groups = list(plan.stream(batches, 0))
    assert [len(group) for group in groups] == [3, 3, 3, 3, 3, 1]
    for done in range(7):
        rest = list(plan.stream(batches, done))
        assert len(rest) == 6 - done
        for group, other in zip(groups[done:], rest, strict=True):
            for a, b in zip(group, other, strict=True):
                np.testing.assert_array_equal(a["input_ids"], b["input_ids"])
    labels = np.concatenate([batch["label_id"] for group in groups for batch in group])
    assert len(labels) == 2 * 50 + 2 * 8


def test_signature_leaves_open_what_varies():
    ids = Ragged.from_lists([[1, 2], [3]])
    table = EncodedTable({"ids": ids, "image": np.zeros((2, 4, 5), np.float32)}, {"mask": "ids"})
    shapes = {name: spec.shape.as_list() for name, spec in batch_signature(Batches(table, 2, shuffle=False)).items()}
    assert shapes == {"ids": [None, None], "image": [None, 4, 5], "mask": [None, None], "example_weight": [None]}


def test_all_lengths_run_through_one_trace():
    fit = trainer(num_epochs=1)
    fit.fit(words_batches(200, batch_size=4))
    assert fit.engine._last_step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_trains_with_float32_variables(precision, tmp_path):
    fit = trainer(tmp_path, AdversarialWordTask(), {"mixed_precision": precision}, num_epochs=8, learning_rate=0.03)
    result = fit.fit(words_batches(), words_batches(shuffle=False))
    model = fit.task.model
    assert model.layer_0.compute_dtype == precision and {v.dtype for v in model.weights} == {tf.float32}
    assert keras.mixed_precision.global_policy().name == "float32"
    losses = [metrics["loss"] for metrics in fit.reporter.steps.values()]
    assert losses[-1] < 0.9 * losses[0] and np.isfinite(result.metrics["loss"])
    outputs = fit.task.forward({name: tf.constant(value) for name, value in words_table(4).batch(range(4)).items()})
    assert outputs["logits"].dtype == tf.float32
    assert ("loss_scale" in fit.reporter.steps[3]) == (precision == "float16")


def test_evaluators_get_no_padding_rows(monkeypatch):
    class Rows(Evaluator):
        def __init__(self):
            self.outputs = []

        def update(self, batch, outputs):
            assert len(batch["label_id"]) == len(outputs["logits"])
            self.outputs.append(outputs)

        def result(self):
            return {}

    fit = trainer()
    monkeypatch.setattr(fit.task, "evaluator", Rows)
    table = words_table(10)
    full, padded = table.batch(np.arange(10)), table.batch(np.arange(5), size=8)
    outputs = fit.inference.evaluate([full, padded])[1].outputs
    assert [len(output["logits"]) for output in outputs] == [10, 5]
    direct = fit.task.model({name: tf.constant(value) for name, value in full.items()})["logits"]
    np.testing.assert_allclose(outputs[0]["logits"], direct, atol=1e-6)
    np.testing.assert_allclose(outputs[1]["logits"], direct[:5], atol=1e-6)


def test_evaluation_does_not_depend_on_the_batch_size():
    fit = trainer()
    results = [fit.evaluate(words_batches(50, batch_size=size, shuffle=False))[0] for size in (1, 7, 50)]
    for metrics in results[1:]:
        assert metrics == pytest.approx(results[0], rel=1e-5)


def test_checkpoint_holds_averaged_weights_and_so_does_the_model_afterwards(tmp_path):
    fit = trainer(tmp_path, ema_decay=0.99)
    result = fit.fit(words_batches())
    other = trainer()
    before = other.task.model.get_weights()
    checkpoint.load_weights(other.task.model, result.last_path)
    for a, b, old in zip(fit.task.model.get_weights(), other.task.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(b - old).max() < 0.05


def test_initial_weights_from_another_run(tmp_path):
    first = trainer(tmp_path / "first")
    first.fit(words_batches())
    second = trainer(tmp_path / "second", init_checkpoint_path=str(tmp_path / "first"), learning_rate=1e-12)
    second.fit(words_batches())
    for a, b in zip(first.task.model.get_weights(), second.task.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert second.engine.step.numpy() == 14 and "initial weights" in second.reporter.messages[0]
    with pytest.raises(ModelError, match="no checkpoint"):
        trainer(init_checkpoint_path=str(tmp_path / "third")).fit(words_batches())
