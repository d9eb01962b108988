"""Trains, evaluates and applies the model of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import tensorflow as tf

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError, Interrupted
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.optim import SCHEDULES
from easytransfer.run.report import NullReporter, Reporter
from easytransfer.train.engine import Engine
from easytransfer.train.inference import Inference
from easytransfer.train.loop import FitResult, TrainLoop
from easytransfer.train.memory import explained_out_of_memory
from easytransfer.train.precision import compiles, compute_precision
from easytransfer.train.resume import RunCheckpoints
from easytransfer.train.signals import StopRequest
from easytransfer.train.task import Task
from easytransfer.train.train_schedule import TrainSchedule, batch_signature


class Trainer:
    """Trains, evaluates and applies the model of a task.

    The model is built here unless the task has one, with the seed and the compute precision of `runtime`.

    Args:
        task: What to train.
        train: Optimization settings; the defaults when None.
        runtime: Seed, precision, XLA, resume.
        run_dir: Folder for checkpoints; None keeps nothing on disk.
        reporter: Receives progress.
        workers: The workers of the job; only the chief writes. Batches must be sharded by their replicas.
        devices: Devices of this process that share every batch of training, see `distributed.devices`.

    Raises:
        ConfigError: The workers are to split the model in a way it does not know, or a compiled one.

    Example:
        >>> trainer = Trainer(task, TrainConfig(num_epochs=3), run_dir="run")
        >>> result = trainer.fit(Batches(rows, 32, shuffle=True), Batches(dev_rows, 64, shuffle=False))
    """

    def __init__(
        self,
        task: Task,
        train: TrainConfig | None = None,
        runtime: RuntimeConfig | None = None,
        run_dir: str | Path | None = None,
        reporter: Reporter | None = None,
        *,
        workers: Workers = ONE_WORKER,
        devices: Sequence[str] = (),
    ) -> None:
        self.task = task
        self.train = train or TrainConfig()
        self.runtime = runtime or RuntimeConfig()
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.reporter: Reporter = reporter or NullReporter()
        self.workers, self.devices = workers, devices
        task.workers = workers
        _check_split(task, self.runtime)
        self.engine: Engine | None = None
        keras.utils.set_random_seed(self.runtime.seed % 2**32)
        if self.runtime.deterministic:
            tf.config.experimental.enable_op_determinism()
        if getattr(task, "model", None) is None:
            with compute_precision(self.runtime.mixed_precision):
                built = task.build_model()
                task.model = task.model if built is None else built
        self.inference = Inference(task, xla=compiles(self.runtime), workers=workers)

    def evaluate(
        self, batches: Batches, *, check: Callable[[], None] | None = None
    ) -> tuple[dict[str, float], Evaluator]:
        """Returns metrics and the evaluator, see `Inference.evaluate`, of at most `num_eval_steps` batches."""
        return self.inference.evaluate(islice(batches.epoch(0), self.train.num_eval_steps), check=check)

    def fit(self, batches: Batches, eval_batches: Batches | None = None) -> FitResult:
        """Trains to the end of the plan, or continues a stopped run that has checkpoints in the run folder.

        Afterwards the model holds the last weights (the averaged ones with `ema_decay`).

        Args:
            batches: Training rows.
            eval_batches: Rows evaluated during training; None = no evaluation.

        Raises:
            Interrupted: SIGTERM or SIGINT came; the run was saved and can be resumed.
            EasyTransferError: The loss is not finite; the batch is saved in the run folder.
            ConfigError: Settings contradict the model, the metrics, or the run that is resumed.
            ModelError: Nothing to resume under `resume=must`, or checkpoints that do not fit.
            ResourceError: Memory or disk is full.
        """
        if self.train.lr_decay not in SCHEDULES:
            self.reporter.message(
                f"lr_decay={self.train.lr_decay} is none of {', '.join(SCHEDULES)}: "
                "the learning rate stays constant after warm-up"
            )
        plan = TrainSchedule.of(batches.steps_per_epoch, self.train)
        self.engine = Engine(
            self.task,
            self.train,
            self.runtime,
            plan.total_steps,
            epoch_batches=plan.steps_per_epoch,
            signature=batch_signature(batches),
            workers=self.workers,
            devices=self.devices,
        )
        checkpoints = RunCheckpoints(
            self.engine, plan, self.train, self.runtime, self.run_dir, self.reporter, writes=self.workers.is_chief
        )
        loop = TrainLoop(
            self.engine,
            self.inference,
            plan,
            self.train,
            checkpoints,
            self.reporter,
            batches,
            eval_batches,
            self.workers,
        )
        status = "failed"
        try:
            with (
                StopRequest() as stop,
                explained_out_of_memory(*self._memory_advice(batches)),
                self.workers.explained_losses(),
            ):
                result = loop.run(stop)
            status = "early_stopped" if result.stopped_early else "done"
            return result
        except Interrupted:
            status = "interrupted"
            raise
        finally:
            self.reporter.end(status)

    def _memory_advice(self, batches: Batches) -> tuple[str, str]:
        """What was going on, and the settings with the same result that need less memory."""
        size, k = batches.batch_size, self.train.num_accumulated_batches
        advice = "a shorter sequence_length or mixed_precision=bfloat16 needs less"
        if size > 1:
            advice = f"use batch_size={size // 2} with num_accumulated_batches={2 * k} (the same updates); {advice}"
        return f"training with batch_size={size}", advice


def _check_split(task: Task, runtime: RuntimeConfig) -> None:
    """Refuses to split a model that cannot be split."""
    tensor, stage = task.workers.tensor, task.workers.stage
    shards, stages = 1 if tensor is None else tensor.size, 1 if stage is None else stage.stages
    for kind, option, count in (("tensor", "tensor_parallel", shards), ("pipeline", "pipeline_stages", stages)):
        if count > 1 and kind not in task.splits:
            accepted = [f"{name} parallelism" for name in task.splits] or "data parallelism only"
            raise ConfigError(
                f"the model of {type(task).__name__} cannot be split so",
                received=f"distribution.{option}={count}",
                accepted=accepted,
                fix=f"set distribution.{option}=1",
            )
    if shards * stages > 1 and compiles(runtime):
        raise ConfigError(
            f"a model split over {shards * stages} workers cannot be compiled with XLA",
            received=f"enable_xla={runtime.enable_xla}, mixed_precision={runtime.mixed_precision}",
            fix="set enable_xla=false and another mixed_precision than bfloat16",
        )
