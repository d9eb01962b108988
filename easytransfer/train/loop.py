"""One training run: steps, evaluations, checkpoints, interruption."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from easytransfer.config.job import TrainConfig
from easytransfer.data.batches import Batches, prefetch
from easytransfer.data.encoded import device_arrays
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import EasyTransferError, Interrupted
from easytransfer.run.report import Reporter
from easytransfer.train.best import BestTracker
from easytransfer.train.engine import Engine
from easytransfer.train.inference import Inference
from easytransfer.train.resume import Progress, RunCheckpoints
from easytransfer.train.signals import StopRequest
from easytransfer.train.steplog import StepLog
from easytransfer.train.train_schedule import Span, TrainSchedule


@dataclass
class FitResult:
    """What a training came to.

    Attributes:
        steps: Updates made, over all parts of a resumed run.
        metrics: Last evaluation.
        best_metrics: Best evaluation.
        best_step: Its step; None without evaluation.
        last_path: Last checkpoint; None without a run folder.
        best_path: Best checkpoint.
        skipped_steps: Steps without an update because gradients were not finite.
        stopped_early: Whether early stopping or a stage ended the run.
        seconds: Wall time of this part.
        input_share: Share of the time of its steps that they waited for their batches; None without a step.
        stages: Steps of the stages, in order.
    """

    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    last_path: Path | None = None
    best_path: Path | None = None
    skipped_steps: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    input_share: float | None = None
    stages: tuple[Span, ...] = ()


class _Stop(Exception):
    """Leaves the loop or an evaluation after a signal has come."""


class TrainLoop:
    """The loop behind `Trainer.fit`.

    Args:
        engine: Makes the steps.
        inference: Evaluates.
        plan: Course of the run.
        train: When to log, evaluate and stop.
        checkpoints: Reads and writes checkpoints.
        reporter: Receives progress.
        batches: Training rows.
        eval_batches: Rows evaluated during training; None = no evaluation.
        workers: The workers of the job.
    """

    def __init__(
        self,
        engine: Engine,
        inference: Inference,
        plan: TrainSchedule,
        train: TrainConfig,
        checkpoints: RunCheckpoints,
        reporter: Reporter,
        batches: Batches,
        eval_batches: Batches | None,
        workers: Workers = ONE_WORKER,
    ) -> None:
        self.engine, self.inference, self.plan, self.train = engine, inference, plan, train
        self.checkpoints, self.reporter = checkpoints, reporter
        self.batches, self.eval_batches, self.workers = batches, eval_batches, workers
        self.progress = Progress(BestTracker(train.metric_for_best, train.early_stopping_patience))
        self.log = StepLog(engine, reporter)
        self._last_evaluation = -float("inf")
        self._agreed = False

    def run(self, stop: StopRequest) -> FitResult:
        """Starts or continues and goes on to the end of the plan, or to `stop`; raises what `Trainer.fit` says."""
        self.stop, begin = stop, time.monotonic()
        self._start()
        progress = self.progress
        self.reporter.start(self.plan.total_steps, progress.step)
        try:
            self._check_metric()
            # A run that was stopped during an evaluation makes it now.
            if progress.evaluated_step < progress.step and self.eval_batches is not None:
                self._after_step()
            self._loop()
        except _Stop:
            self._interrupt()
        self._agree()
        if progress.saved_step != progress.step:
            self.checkpoints.save(progress)
        self.engine.averages.swap()
        self.workers.barrier()  # the first worker that ends would end the exchanges of the others
        return self._result(time.monotonic() - begin)

    def _start(self) -> None:
        """Loads the chief's checkpoint or initial weights and gives them to all workers.

        Workers with parts of a model load these themselves, once the chief has tidied the run folder.
        """
        if self.workers.is_chief:
            self.checkpoints.start(self.progress)
        if self.workers.size > 1:
            self.workers.check_same("plan", str(self.plan))
            digests = {role: record["sha256"] for role, record in self.engine.task.frozen_records().items()}
            self.workers.check_same("networks of other runs", str(digests))
            if self.checkpoints.split:
                if not self.workers.is_chief:
                    self.checkpoints.start(self.progress)
                self.workers.check_same("checkpoint in its run folder", str(self.progress.step))
            elif len(self.plan.spans) > 1:
                # The chief's engine may be in a later stage than that of the others.
                number = self.plan.stage_of(self.workers.gather(self.progress.step)[0])
                if self.plan.spans[number] != self.engine.span:
                    self.engine.enter(self.plan.stages[number], self.plan.spans[number])
            self.workers.broadcast([*self.engine.task.model.weights, *self.engine.training_variables().values()])
            state, self.progress = self.workers.gather((self.engine.task.state(), self.progress))[0]
            self.engine.task.restore_state(state)

    def _loop(self) -> None:
        progress, total = self.progress, self.plan.total_steps
        with closing(prefetch(self.plan.stream(self.batches, progress.step))) as stream:
            if self.engine.span.start < progress.step < self.engine.span.end:
                self._report_stage()
            self.log.restart()
            while progress.step < total and not progress.best.exhausted:
                self._raise_if_asked()
                if not self._begin_stage():
                    break
                asked = time.monotonic()
                group = next(stream)
                input_s = time.monotonic() - asked
                self.log.add(group, self.engine.run_step(group), input_s)
                progress.step += 1
                evaluates, saves = self.plan.evaluates(progress.step), self.plan.saves(progress.step)
                if evaluates or saves or self._asked() or progress.step % self.train.log_step_count_steps == 0:
                    self._report()
                self._after_step()

    def _begin_stage(self) -> bool:
        """Begins a stage before its first step, with the weights that the stage before was evaluated with.

        A run that goes on where a stage has ended does the same: its checkpoint is from before.

        Returns:
            False where the stage says that the training is over.
        """
        number, step = self.plan.stage_of(self.progress.step + 1), self.progress.step
        stage, span = self.plan.stages[number], self.plan.spans[number]
        if step != span.start:
            return True
        if step:
            self._agree()
            self.engine.averages.swap()
        if stage.begin is not None:
            ends = stage.begin() is False
            if self.workers.size > 1:
                self.workers.broadcast(self.engine.task.model.weights)
            if number and self.workers.gather(ends)[0]:
                self._end_before(number)
                return False
        if step or stage.begin is not None:
            self.engine.enter(stage, span)
        self._report_stage()
        self.log.restart()
        return True

    def _end_before(self, number: int) -> None:
        """Makes the stage before `number` the last one: its evaluation is now one that picks the best checkpoint."""
        self.engine.averages.swap()
        self.plan = replace(self.plan, spans=self.plan.spans[:number], stages=self.plan.stages[:number])
        if self.eval_batches is not None:
            self._evaluate()
        self.checkpoints.save(self.progress)

    def _report_stage(self) -> None:
        """Says which stage goes on, where there are several."""
        names = [span.name for span in self.plan.spans]
        if len(names) > 1:
            self.reporter.stage(names, names.index(self.engine.span.name), self.progress.step)

    def _check_metric(self) -> None:
        """Finds an unknown `metric_for_best` before training instead of after the first epoch."""
        if self.train.metric_for_best and self.eval_batches is not None:
            metrics, evaluator = self.inference.evaluate(islice(self.eval_batches.epoch(0), 1))
            self.progress.best.metric_name(metrics, evaluator)

    def _after_step(self) -> None:
        """Evaluates and saves when due. The evaluation comes first, so that a checkpoint knows of it."""
        step, due = self.progress.step, self._evaluation_due()
        if due or self.plan.saves(step):
            self._agree()
        better = due and self._evaluate()
        if better or self.plan.saves(step) or self.progress.best.exhausted:
            self.checkpoints.save(self.progress)
            self.log.restart()

    def _agree(self) -> None:
        """Makes what workers follow by themselves, the moving statistics of their own rows, one before it is used.

        They are linear in the statistics of the batches, so it makes no difference how often this is done.
        """
        weights = self.engine.task.model.weights
        self.workers.average([weight for weight in weights if not weight.trainable and weight.dtype.is_floating])

    def _evaluation_due(self) -> bool:
        if self.eval_batches is None or not self.plan.evaluates(self.progress.step):
            return False
        if not self.train.throttle_secs or self.progress.step == self.plan.total_steps:
            return True
        # Clocks differ: the chief's decides.
        return self.workers.gather(time.monotonic() - self._last_evaluation >= self.train.throttle_secs)[0]

    def _evaluate(self) -> bool:
        progress = self.progress
        with self.engine.averages.applied():
            rows = islice(self.eval_batches.epoch(0), self.train.num_eval_steps)
            metrics, evaluator = self.inference.evaluate(rows, check=self._raise_if_asked)
        # Earlier stages are on the way: their networks and losses are not those of the result.
        is_last = progress.step > self.plan.spans[-1].start
        better = is_last and progress.best.add(progress.step, metrics, evaluator)
        progress.metrics, progress.evaluated_step = metrics, progress.step
        self._last_evaluation = time.monotonic()
        self.reporter.evaluation(progress.step, {**metrics, "is_best": better})
        self.log.restart()
        return better

    def _report(self) -> None:
        """Reads the steps since the last report; stops training if one of them failed."""
        step = self.progress.step
        failed = self.log.report(step, epoch=self.plan.batches_done(step) / self.plan.steps_per_epoch)
        if failed is None:
            return
        raise EasyTransferError(
            f"the loss or a gradient of step {failed} is not finite; {self._dump(failed)}",
            fix="lower learning_rate, keep gradient_clip on, prefer bfloat16 to float16, or check those rows",
        )

    def _dump(self, step: int) -> str:
        """Saves the batches of `step`; they are made anew, which costs nothing until it is needed."""
        run_dir = self.checkpoints.run_dir
        if run_dir is None:
            return "without a run folder its batch is not saved"
        path = run_dir / f"bad-batch-{step}.npz"
        run_dir.mkdir(parents=True, exist_ok=True)
        group = self.plan.batches_of(step, self.batches)
        arrays = {
            (f"{i}/{n}" if len(group) > 1 else n): value
            for i, b in enumerate(group)
            for n, value in device_arrays(b).items()
        }
        np.savez(path, **arrays)
        return f"its batch is saved in {path}"

    def _asked(self) -> bool:
        """Whether to stop. Several workers must stop after the same step; they ask each other at every log line."""
        if self.workers.size == 1:
            return self.stop.received is not None
        if self.progress.step % self.train.log_step_count_steps == 0 and self.workers.any(bool(self.stop.received)):
            self.stop.received = self.stop.received or "a signal to another worker"
            self._agreed = True
        return self._agreed

    def _raise_if_asked(self) -> None:
        if self.stop.received and (self.workers.size == 1 or self._agreed):
            raise _Stop

    def _interrupt(self) -> None:
        progress, writes = self.progress, self.checkpoints.writes
        self._report()
        self._agree()
        if progress.saved_step != progress.step:
            self.checkpoints.save(progress)
        kept = "saved" if writes else "nothing is saved without a run folder"
        raise Interrupted(
            f"{self.stop.received} stopped training after step {progress.step} of {self.plan.total_steps}: {kept}",
            fix="run the same command again to continue" if writes else None,
        )

    def _result(self, seconds: float) -> FitResult:
        progress, path = self.progress, self.checkpoints.path
        return FitResult(
            steps=progress.step,
            metrics=progress.metrics,
            best_metrics=progress.best.metrics,
            best_step=progress.best.step,
            last_path=path(progress.step),
            best_path=path(progress.best.step),
            skipped_steps=int(self.engine.skipped.numpy()),
            stopped_early=progress.step < self.engine.total_steps,
            seconds=seconds,
            input_share=self.log.waited / self.log.stepped if self.log.stepped else None,
            stages=self.plan.spans,
        )
