"""Stopping and continuing: the end of a resumed run is that of an unbroken one, bit by bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from toy_tasks import CLASSES, WORDS, GeneratorCriticTask, Recorder, WordTask, words_batches

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.errors import ConfigError, Interrupted, ModelError
from easytransfer.optim.base import FORMER_NO_DECAY, NO_DECAY
from easytransfer.train import checkpoint
from easytransfer.train.resume import RunCheckpoints
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.trainer import Trainer

HARD = {"ema_decay": 0.9, "num_accumulated_batches": 2, "weight_decay_ratio": 0.01, "num_freezed_layers": 1}


class Killer(Recorder):
    """Sends a signal to this process when training has come to a step."""

    def __init__(self, step, event="saved", number=signal.SIGTERM):
        super().__init__()
        self.step_of_kill, self.event, self.number = step, event, number

    def _maybe(self, event, step):
        if (event, step) == (self.event, self.step_of_kill):
            os.kill(os.getpid(), self.number)

    def step(self, step, metrics):
        super().step(step, metrics)
        self._maybe("step", step)

    def saved(self, step, path):
        super().saved(step, path)
        self._maybe("saved", step)


def run(run_dir, reporter=None, task=None, rows=90, runtime=None, **train):
    settings = {"learning_rate": 0.01, "num_epochs": 3, "log_step_count_steps": 1, **train}
    runtime = RuntimeConfig(deterministic=True, **(runtime or {}))
    trainer = Trainer(task or WordTask(0.3), TrainConfig(**settings), runtime, run_dir, reporter or Recorder())
    return trainer, trainer.fit(words_batches(rows), words_batches(30, shuffle=False, seed=5))


def last(run_dir):
    return checkpoint.load(checkpoint.resolve(run_dir / "model.ckpt-last"))


def pointer(run_dir):
    return json.loads((run_dir / checkpoint.POINTER).read_text())


def assert_same(a, b):
    for one, other in ((a.weights, b.weights), (a.training, b.training)):
        assert len(one) == len(other)
        for x, y in zip(one.values(), other.values(), strict=True):
            np.testing.assert_array_equal(x, y)
    ignored = ("files", "checksum", "order")
    assert {k: v for k, v in a.state.items() if k not in ignored} == {
        k: v for k, v in b.state.items() if k not in ignored
    }


@pytest.mark.parametrize(
    ("number", "train", "task"),
    [
        (signal.SIGINT, HARD, WordTask),
        (signal.SIGTERM, {}, GeneratorCriticTask),
    ],
)
def test_signal_saves_at_the_step_and_the_resumed_run_ends_the_same(tmp_path, number, train, task):
    whole, result = run(tmp_path / "whole", task=task(0.3), **train)
    killer = Killer(5, "step", number)
    with pytest.raises(Interrupted, match=f"{signal.Signals(number).name} stopped training after step 5") as error:
        run(tmp_path / "broken", killer, task(0.3), **train)
    assert error.value.exit_code == 6 and killer.status == "interrupted"
    assert last(tmp_path / "broken").state["step"] == 5
    resumed, again = run(tmp_path / "broken", task=task(0.3), **train)
    assert resumed.reporter.start_step == 5 and resumed.task.restored == {"note": "kept"}
    assert_same(last(tmp_path / "whole"), last(tmp_path / "broken"))
    assert (again.metrics, again.best_step, again.steps) == (result.metrics, result.best_step, result.steps)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signal_during_an_evaluation_redoes_it_after_resuming(tmp_path):
    class Stopped(WordTask):
        def evaluator(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluator()

    _, whole = run(tmp_path / "whole", early_stopping_patience=2)
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", task=Stopped(0.3), early_stopping_patience=2)
    assert last(tmp_path / "broken").state["evaluated_step"] == 0
    resumed, result = run(tmp_path / "broken", early_stopping_patience=2)
    assert min(resumed.reporter.evaluations) == last(tmp_path / "whole").state["steps_per_epoch"]
    assert_same(last(tmp_path / "whole"), last(tmp_path / "broken"))


def test_same_seed_repeats_bit_by_bit_and_another_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, runtime={"seed": seed}, num_epochs=1)
    assert_same(last(tmp_path / "a"), last(tmp_path / "b"))
    other = last(tmp_path / "c").weights.values()
    assert any((x != y).any() for x, y in zip(last(tmp_path / "a").weights.values(), other, strict=True))


def test_broken_checkpoint_falls_back_to_the_one_before(tmp_path):
    run(tmp_path / "whole", save_checkpoint_steps=4)
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", Killer(8), save_checkpoint_steps=4)
    file = tmp_path / "broken" / "model.ckpt-8" / checkpoint.TRAINING
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="broken"):
        run(tmp_path / "broken", runtime={"resume": "must"}, save_checkpoint_steps=4)
    resumed, _ = run(tmp_path / "broken", save_checkpoint_steps=4)
    assert resumed.reporter.start_step == 4 and "broken" in resumed.reporter.messages[0]
    assert_same(last(tmp_path / "whole"), last(tmp_path / "broken"))


def test_finished_run_is_not_trained_again(tmp_path):
    run(tmp_path, num_epochs=1)
    before = last(tmp_path)
    again, result = run(tmp_path, num_epochs=1)
    assert not again.reporter.steps and result.metrics == before.state["metrics"]
    assert_same(before, last(tmp_path))


def test_a_run_killed_between_its_last_checkpoint_and_the_pointer_points_to_it(tmp_path, monkeypatch):
    """Nothing is left to train, so no later save mends the pointer: predictions would be those of an older model."""
    run(tmp_path / "whole")
    expected, plain = pointer(tmp_path / "whole"), checkpoint.point

    def killed_at_the_end(run_dir, step, best):
        if checkpoint.folder_name(step) == expected["last"]:
            raise KeyboardInterrupt
        plain(run_dir, step, best)

    monkeypatch.setattr(checkpoint, "point", killed_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    assert pointer(tmp_path / "killed")["last"] != expected["last"]
    monkeypatch.setattr(checkpoint, "point", plain)
    again, _ = run(tmp_path / "killed")
    assert not again.reporter.steps and pointer(tmp_path / "killed") == expected
    assert_same(last(tmp_path / "whole"), last(tmp_path / "killed"))


def test_resume_policies(tmp_path):
    with pytest.raises(ModelError, match="holds no checkpoint"):
        run(tmp_path, runtime={"resume": "must"})
    with pytest.raises(ModelError, match="needs a run folder"):
        run(None, runtime={"resume": "must"})
    run(tmp_path, num_epochs=1)
    with pytest.raises(ConfigError, match="overwrite"):
        run(tmp_path, runtime={"resume": "never"})
    fresh, _ = run(tmp_path, runtime={"resume": "never", "overwrite": True}, num_epochs=1)
    assert fresh.reporter.start_step == 0 and fresh.reporter.steps


def test_resuming_with_another_course_is_refused(tmp_path):
    run(tmp_path, num_epochs=1)
    with pytest.raises(ConfigError, match="steps_per_epoch=12"):
        run(tmp_path, rows=50)
    with pytest.raises(ConfigError, match="seed"):
        run(tmp_path, runtime={"seed": 9})
    with pytest.raises(ModelError, match="optimizer_type"):
        run(tmp_path, num_epochs=2, optimizer_type="adagrad")


def test_second_signal_ends_the_process(tmp_path):
    code = (
        "import os, signal, time\n"
        "from easytransfer.train.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert stop.received == 'SIGTERM'\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGTERM


def kill_trials(repository, *arguments):
    command = [sys.executable, repository / "benchmarks" / "kill_resume.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_three_times_and_resumed_ends_the_same(repository):
    result = kill_trials(repository, "--trials", "1", "--kills", "3", "--seed", "4")
    assert result["equal"] == 1 and result["kills"] >= 1


@pytest.mark.slow
def test_twenty_kills_at_random_times(repository):
    result = kill_trials(repository, "--trials", "20")
    assert result["equal"] == 20 and result["kills"] >= 15


# Weight decay --------------------------------------------------------------------------------------------------


class NormTask(WordTask):
    """Has scales and offsets of batch normalization, which runs once decayed."""

    def build_model(self):
        inputs = {name: keras.Input([None], dtype="int32", name=name) for name in ("input_ids", "input_mask")}
        x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(WORDS, 4, name="words")(inputs["input_ids"]))
        x = keras.layers.BatchNormalization(name="bn")(x)
        return keras.Model(inputs, {"logits": keras.layers.Dense(CLASSES, name="head")(x)})

    def layer_groups(self):
        return [list(self.model.trainable_variables)]


class FormerNormTask(NormTask):
    def optimizers(self):
        return {"default": OptimizerPart(self.model.trainable_variables, no_decay=FORMER_NO_DECAY)}


def test_a_run_keeps_the_rule_of_weight_decay_it_was_started_with(tmp_path, monkeypatch):
    """A run from before the rule was stored goes on with that of its time, says so, and hands it on."""
    settings = {"weight_decay_ratio": 0.5, "lr_decay": "constant", "warmup_ratio": 0.0, "rows": 16}
    fresh, _ = run(tmp_path / "fresh", task=NormTask(), **settings, num_epochs=2)
    assert last(tmp_path / "fresh").state["no_decay"] == {"default": list(NO_DECAY)}
    run(tmp_path / "unbroken", task=FormerNormTask(), **settings, num_epochs=2)
    state = RunCheckpoints._state
    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoints, "_state", lambda *given: {**state(*given), "no_decay": {}})
        run(tmp_path / "resumed", task=FormerNormTask(), **settings, num_epochs=1)
    resumed, _ = run(tmp_path / "resumed", task=NormTask(), **settings, num_epochs=2)
    message = "the run was started with another rule of weight decay and keeps it: a new run would decay 2 of 5 weights"
    assert any(message in line for line in resumed.reporter.messages)
    assert not any("weight decay" in line for line in fresh.reporter.messages)
    ends = {name: last(tmp_path / name) for name in ("unbroken", "resumed", "fresh")}
    assert ends["resumed"].state["no_decay"] == {"default": list(FORMER_NO_DECAY)}
    for name, value in ends["unbroken"].weights.items():
        np.testing.assert_array_equal(value, ends["resumed"].weights[name])
    assert not np.array_equal(ends["fresh"].weights["bn/gamma"], ends["resumed"].weights["bn/gamma"])
