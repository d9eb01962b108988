"""Stages of a training: what they train, that a run of several can be stopped anywhere, and what is refused."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from test_train_resume import Killer, assert_same, last
from toy_tasks import GeneratorCriticTask, Recorder, WordModel, WordTask, words_batches, words_table

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.errors import ConfigError, Interrupted
from easytransfer.optim import build_schedule
from easytransfer.run.report import RunReporter
from easytransfer.train.stages import TrainingStage
from easytransfer.train.step import Loss
from easytransfer.train.train_schedule import TrainSchedule
from easytransfer.train.trainer import Trainer


class Staged(WordTask):
    """Trains in the stages it is given."""

    def __init__(self, stages, dropout=0.3):
        super().__init__(dropout)
        self.given = stages

    def stages(self):
        return self.given


class NormedModel(WordModel):
    """Has batch normalization in its body, and a teacher that no optimizer trains."""

    def __init__(self, dropout):
        super().__init__(dropout)
        self.norm = keras.layers.BatchNormalization(name="layer_norm_batch")
        self.teacher = keras.layers.Dense(3, name="teacher", trainable=False)

    def classify(self, embedded, mask, training):
        mask = tf.cast(mask, embedded.dtype)[..., None]
        x = tf.reduce_sum(embedded * mask, 1) / tf.reduce_sum(mask, 1)
        x = self.dropout(self.norm(self.layer_1(self.layer_0(x)), training=training), training=training)
        return {"logits": self.head(x), "taught": self.teacher(x)}


class Taught(Staged):
    """In its second stage the head also learns from the head that the first one has left, as it is then."""

    def __init__(self, dropout=0.3, steps=5):
        super().__init__([], dropout)
        second = {"optimizer_type": "adagrad", "weight_decay_ratio": 0.0, "warmup_ratio": 0.0}
        self.given = [
            TrainingStage("head", steps=steps, trains=["head/"], settings={"learning_rate": 0.05}),
            TrainingStage("all", settings=second, begin=self.copy_head),
        ]
        self.seen = []

    def copy_head(self):
        for mine, other in zip(self.model.teacher.weights, self.model.head.weights, strict=True):
            mine.assign(other)

    def build_model(self):
        model = NormedModel(self.dropout)
        model({"input_ids": tf.ones([1, 2], tf.int32), "input_mask": tf.ones([1, 2], tf.int32)})
        return model

    def layer_groups(self):
        return [list(self.model.trainable_variables)]

    def losses(self, batch, outputs, step):
        found = super().losses(batch, outputs, step)
        if step.training:
            self.seen.append((step.stage, step.stage_total))
        if step.stage == "all":
            each = tf.reduce_sum(tf.square(outputs["logits"] - tf.stop_gradient(outputs["taught"])), -1)
            found["taught"] = Loss(0.1 * tf.reduce_sum(each * batch["example_weight"]), found["cross_entropy"].weight)
        return found


def run(folder, task, reporter=None, rows=90, batches=None, **train):
    settings = {"learning_rate": 0.01, "num_epochs": 1, "log_step_count_steps": 1, **train}
    runtime = RuntimeConfig(deterministic=True)
    trainer = Trainer(task, TrainConfig(**settings), runtime, folder, reporter or Recorder())
    return trainer, trainer.fit(batches or words_batches(rows), words_batches(30, shuffle=False, seed=5))


def weights(trainer):
    return {v.name: v.numpy() for v in trainer.task.model.weights}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two unbroken stages, the second with averages and accumulation like the first."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, Taught(), **HARD)


HARD = {"ema_decay": 0.9, "num_accumulated_batches": 2, "weight_decay_ratio": 0.01}


def test_the_course_of_stages_by_hand():
    stages = [TrainingStage("a", steps=2), TrainingStage("b", epochs=0.5), TrainingStage("c")]
    plan = TrainSchedule.of(7, TrainConfig(num_epochs=1, num_accumulated_batches=3), stages)
    # 2 * 3 batches; ceil(3.5) = 4 batches in 2 steps; 7 batches in 3 steps.
    spans = [(s.name, s.start, s.end, s.first_batch, s.last_batch) for s in plan.spans]
    assert spans == [("a", 0, 2, 0, 6), ("b", 2, 4, 6, 10), ("c", 4, 7, 10, 17)]
    assert [plan.batches_done(step) for step in range(8)] == [0, 3, 6, 9, 10, 13, 16, 17]
    assert [plan.stage_of(step) for step in range(9)] == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert (plan.total_steps, plan.total_batches, plan.position(4)) == (7, 17, (1, 3))
    # Batches 7 and 14, with which epochs end, are used in steps 3 and 6; stages end with steps 2, 4 and 7.
    assert [step for step in range(8) if plan.evaluates(step)] == [2, 3, 4, 6, 7]
    assert [step for step in range(8) if plan.saves(step)] == [2, 3, 4, 6, 7]


def test_one_stage_with_another_name_is_the_plain_training(tmp_path):
    plain, _ = run(tmp_path / "plain", WordTask(0.3), num_epochs=2, ema_decay=0.9)
    named, _ = run(tmp_path / "named", Staged([TrainingStage("only")]), num_epochs=2, ema_decay=0.9)
    for a, b in zip(plain.task.model.get_weights(), named.task.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert named.reporter.stages == [] and last(tmp_path / "named").state["stages"] == [["only", 0]]


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_two_stages_are_two_runs_of_which_the_second_starts_from_the_first(tmp_path, ema):
    """Without dropout and shuffling nothing depends on the step but the schedule, which is that of the stage."""
    table = words_table(40)
    batches = lambda: Batches(table, 8, shuffle=False)  # noqa: E731
    second = {"learning_rate": 0.02, "optimizer_type": "lamb", "lr_decay": "cosine", "num_freezed_layers": 1}
    stages = [TrainingStage("one", epochs=2), TrainingStage("two", epochs=3, settings=second)]
    both, _ = run(tmp_path / "both", Staged(stages, 0.0), batches=batches(), ema_decay=ema)
    run(tmp_path / "first", WordTask(0.0), batches=batches(), num_epochs=2, ema_decay=ema)
    after, result = run(
        tmp_path / "second", WordTask(0.0), batches=batches(), num_epochs=3, ema_decay=ema, **second,
        init_checkpoint_path=str(tmp_path / "first" / "model.ckpt-last"),
    )  # fmt: skip
    for a, b in zip(both.task.model.get_weights(), after.task.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    rates = {step: metrics["lr"] for step, metrics in both.reporter.steps.items()}
    for start, count, settings in ((0, 10, {"learning_rate": 0.01}), (10, 15, second)):
        schedule = build_schedule(TrainConfig(**settings), count)
        for step in range(count):
            assert rates[start + step + 1] == pytest.approx(float(schedule(step)), rel=1e-6)
    assert result.best_metrics["accuracy"] == max(m["accuracy"] for m in after.reporter.evaluations.values())


def test_what_a_stage_does_not_train_stays_bit_by_bit_with_its_statistics(tmp_path):
    task = Taught()
    trainer, _ = run(tmp_path, task, weight_decay_ratio=0.1, keep_checkpoint_max=99)
    keras.utils.set_random_seed(RuntimeConfig().seed)
    first = {v.name: v.numpy() for v in Taught().build_model().weights}
    border = dict(zip(first, np_weights(tmp_path, 5), strict=True))
    end = dict(zip(first, np_weights(tmp_path, 17), strict=True))
    for name, value in first.items():
        moved = not np.array_equal(value, border[name])
        assert moved == ("head/" in name), name
        assert not np.array_equal(border[name], end[name]), name
    for part in ("kernel", "bias"):
        name = next(n for n in first if re.search(f"teacher/{part}", n))
        head = next(n for n in first if re.search(f"head/{part}", n))
        np.testing.assert_array_equal(end[name], border[head])
    assert [layer.trainable for layer in (task.model.norm, task.model.layer_0)] == [True, True]
    assert set(task.seen) == {("head", 5), ("all", 12)}


def np_weights(folder, step):
    from easytransfer.train import checkpoint

    return list(checkpoint.load(folder / f"model.ckpt-{step}").weights.values())


@pytest.mark.parametrize(("step", "event"), [(3, "step"), (5, "saved"), (5, "step"), (6, "step"), (9, "step")])
def test_stopped_in_a_stage_or_between_two_it_ends_the_same(whole, tmp_path, step, event):
    folder, _, result = whole
    with pytest.raises(Interrupted, match=f"after step {step} of"):
        run(tmp_path, Taught(), Killer(step, event), **HARD)
    state = last(tmp_path).state
    assert (state["step"], state["stage"]) == (step, "head" if step <= 5 else "all")
    resumed, again = run(tmp_path, Taught(), **HARD)
    assert resumed.reporter.start_step == step
    assert resumed.reporter.stages == ([("head", 3)] if step == 3 else []) + [("all", max(step, 5))]
    assert_same(last(folder), last(tmp_path))
    assert (again.metrics, again.best_step, again.steps) == (result.metrics, result.best_step, result.steps)


def test_a_killed_run_goes_on_from_its_last_checkpoint_in_either_stage(whole, tmp_path):
    """As after kill -9: what was not saved is made again."""

    class Lost(Exception):
        pass

    class Losing(Recorder):
        def step(self, step, metrics):
            super().step(step, metrics)
            if step == self.lost_at:
                raise Lost

    for Losing.lost_at, stage in ((4, "head"), (8, "all")):
        with pytest.raises(Lost):
            run(tmp_path, Taught(), Losing(), save_checkpoint_steps=2, **HARD)
        assert last(tmp_path).state["stage"] == stage
    run(tmp_path, Taught(), save_checkpoint_steps=2, **HARD)
    for a, b in zip(last(whole[0]).weights.values(), last(tmp_path).weights.values(), strict=True):
        np.testing.assert_array_equal(a, b)


class Scores:
    """An evaluator that gives what it is told, one value after the other."""

    main_metric, higher_is_better = "score", True
    values = iter(())

    def update(self, batch, outputs): ...

    def result(self):
        return {"score": next(self.values)}


def test_the_last_stage_alone_picks_the_best_and_stops_early(tmp_path):
    task = Staged([TrainingStage("one", epochs=3), TrainingStage("two", epochs=9)])
    Scores.values = iter([0.9, 0.8, 0.7, 0.3, 0.6, 0.5, 0.4, 0.2])
    task.evaluator = Scores
    trainer, result = run(tmp_path, task, rows=16, early_stopping_patience=2)
    # Two steps an epoch: falling scores do not stop the first stage, and its 0.9 is not the best.
    assert list(trainer.reporter.evaluations) == [2, 4, 6, 8, 10, 12, 14]
    best = [step for step, metrics in trainer.reporter.evaluations.items() if metrics["is_best"]]
    assert best == [8, 10] and result.best_step == 10 and result.stopped_early and result.steps == 14
    assert [(span.name, span.start, span.end) for span in result.stages] == [("one", 0, 6), ("two", 6, 24)]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_stage_may_end_the_training_before_it_begins(tmp_path, ema):
    def stages(*begins):
        return [TrainingStage(f"{i}", steps=3, begin=begin) for i, begin in enumerate(begins)]

    unbroken, whole = run(tmp_path / "two", Staged(stages(None, None)), ema_decay=ema)
    ended, result = run(tmp_path / "ended", Staged(stages(None, None, lambda: False, None)), ema_decay=ema)
    assert (result.steps, result.stopped_early, whole.stopped_early) == (6, True, False)
    assert [span.name for span in result.stages] == ["0", "1"]
    # The evaluation at the end of the second stage is that of the run, whatever was planned.
    assert result.best_step == 6 and result.best_metrics == whole.best_metrics == result.metrics
    for name, value in weights(unbroken).items():
        np.testing.assert_array_equal(weights(ended)[name], value, err_msg=name)
    again, resumed = run(tmp_path / "ended", Staged(stages(None, None, lambda: False, None)), ema_decay=ema)
    assert (resumed.steps, resumed.best_step, resumed.metrics) == (6, 6, result.metrics)
    for name, value in weights(unbroken).items():
        np.testing.assert_array_equal(weights(again)[name], value, err_msg=name)


def test_optimizers_of_a_stage(tmp_path):
    class Players(GeneratorCriticTask):
        def stages(self):
            return [TrainingStage("both", steps=2), TrainingStage("critic", steps=2, trains=["head/"])]

        def train_step(self, step, batch):
            if step.stage == "both" or self.updates_all:
                return super().train_step(step, batch)
            with tf.GradientTape() as tape:
                losses = self.losses(batch, self.forward(batch, training=True), step)
                objective = step.objective(losses, "critic")
            step.update(tape.gradient(objective, step.variables("critic")), "critic")
            return losses

    task = Players(0.0)
    task.updates_all = False
    trainer, _ = run(tmp_path / "a", task, keep_checkpoint_max=9)
    assert any("num_epochs=1 is not used: both, critic" in line for line in trainer.reporter.messages)
    before, after = np_weights(tmp_path / "a", 2), np_weights(tmp_path / "a", 4)
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == ["head/" in v.name for v in task.model.weights] and sum(moved) == 2
    wrong = Players(0.0)
    wrong.updates_all = True
    with pytest.raises(ValueError, match="optimizer 'generator' trains nothing in stage 'critic'"):
        run(tmp_path / "b", wrong)


def test_going_on_with_other_stages_is_refused(tmp_path):
    def staged(first, name="one", second=2):
        return Staged([TrainingStage(name, steps=first), TrainingStage("two", steps=second)])

    with pytest.raises(Interrupted):
        run(tmp_path, staged(3), Killer(4, "step"))
    for other in (staged(2), staged(3, "uno"), staged(9), WordTask(0.3)):
        with pytest.raises(ConfigError, match=r"was made with the stages one after step 0, two after step 3") as caught:
            run(tmp_path, other)
        assert "\n" not in str(caught.value)
    # What has not begun may be longer.
    longer, result = run(tmp_path, staged(3, second=4))
    assert result.steps == 7 and any("planned for 5 steps, now for 7" in line for line in longer.reporter.messages)


def test_stages_that_make_no_sense_are_refused():
    def refused(match, *stages, task=Staged):
        with pytest.raises(ValueError, match=match):
            run(None, task(list(stages)))

    refused("need names that differ, not \\[\\]")
    refused("need names that differ", TrainingStage("a"), TrainingStage("a"))
    refused("epochs=1 and steps=2: give one", TrainingStage("a", epochs=1, steps=2))
    refused("above 0", TrainingStage("a", steps=0))
    refused(
        "sets batch_size; a stage has optimizer_type, learning_rate", TrainingStage("a", settings={"batch_size": 2})
    )
    refused("learning_rate", TrainingStage("a", settings={"learning_rate": -1}))
    refused("trains a name like 'tail', which is none", TrainingStage("a", trains=["tail"]))
    refused("trains strange", TrainingStage("a", trains=[tf.Variable(1.0, name="strange")]))


def test_records_and_progress_lines_name_the_stage(tmp_path, capsys):
    stages = [TrainingStage("one", steps=3), TrainingStage("two", steps=2)]
    run(tmp_path, Staged(stages), RunReporter(tmp_path, tensorboard=False, live=False))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["stage"]) for line in lines if line["event"] == "step"] == [
        *((step, "one") for step in (1, 2, 3)),
        *((step, "two") for step in (4, 5)),
    ]
    shown = capsys.readouterr().err
    assert "stage two, 2 of 2, goes on after step 3" in shown
    assert re.search(r"train one 3/5 +60%", shown) and re.search(r"train two 5/5 +100%", shown)
