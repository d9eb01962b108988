"""Everything a run needs to continue: written into checkpoints, taken back from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.distributed.shards import shard_of, whole_value
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.lora import base_digest, without_base
from easytransfer.optim.base import FORMER_NO_DECAY
from easytransfer.run.environment import package_versions
from easytransfer.run.report import Reporter
from easytransfer.train import checkpoint
from easytransfer.train.best import BestTracker
from easytransfer.train.engine import Engine
from easytransfer.train.train_schedule import TrainSchedule
from easytransfer.train.weights import TRAINING_ONLY, assign_arrays, named_arrays, variable_names


@dataclass
class Progress:
    """What changes while a run goes on, apart from variables.

    Attributes:
        best: Best evaluation so far.
        step: Completed updates.
        metrics: Last evaluation.
        evaluated_step: Step it was made after.
        saved_step: Step of the newest checkpoint.
    """

    best: BestTracker
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    evaluated_step: int = 0
    saved_step: int | None = None


class RunCheckpoints:
    """Checkpoints of one run.

    Args:
        engine: Holds model and optimizer.
        plan: Course of the run.
        train: Optimization settings.
        runtime: Seed and resume policy.
        run_dir: Run folder; None = nothing is read or written.
        reporter: Told about saved and broken checkpoints.
        writes: False on workers that only read.
    """

    def __init__(
        self,
        engine: Engine,
        plan: TrainSchedule,
        train: TrainConfig,
        runtime: RuntimeConfig,
        run_dir: Path | None,
        reporter: Reporter,
        writes: bool = True,
    ) -> None:
        self.engine, self.plan, self.train, self.runtime = engine, plan, train, runtime
        self.run_dir, self.reporter = run_dir, reporter
        self.writes = writes and run_dir is not None
        # Whether variables are split over workers: then all of them take part in loading and saving.
        weights, self.workers = engine.task.model.weights, engine.workers
        self.base = base_digest(weights)
        self.split = self.workers.stage is not None or any(shard_of(variable) is not None for variable in weights)
        self.shared = self.split or engine.keeps_residuals

    def start(self, progress: Progress) -> None:
        """Loads the checkpoint to continue from, or the initial weights.

        Raises:
            ConfigError: The checkpoint is of a run with another course, or checkpoints are in the way.
            ModelError: Nothing to resume under `resume=must`, or a checkpoint that does not fit.
        """
        found = self._find()
        if found is not None:
            self._restore(found, progress)
            if self.writes:  # a run that was killed between a save and this would go on pointing to the one before
                checkpoint.point(self.run_dir, progress.step, progress.best.step)
        elif self.train.init_checkpoint_path:
            path = checkpoint.resolve(self.train.init_checkpoint_path)
            found = checkpoint.load(path, weights_only=True)
            own = variable_names(self.engine.task.model.weights)
            weights = {n: x for n, x in found.weights.items() if n in own or not n.startswith(TRAINING_ONLY)}
            self._assign(replace(found, weights=weights))
            self.engine.averages.reset()
            self.reporter.message(f"initial weights from {path}")

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, points to it and deletes old ones."""
        if not self.writes and not self.shared:
            return
        # Evaluation and export use averaged weights, so these go into the weights file; see Engine.restore.
        with self.engine.averages.applied(), self.workers.joined_residuals():
            weights = named_arrays(without_base(self.engine.task.model.weights))
            training = {name: whole_value(variable) for name, variable in self.engine.training_variables().items()}
            weights, training = self.workers.join_stages(weights), self.workers.join_stages(training)
        # Also where nothing is written: all workers must agree on whether there is something to save.
        progress.saved_step = progress.step
        if not self.writes:
            return
        path = checkpoint.save(self.run_dir, progress.step, weights, training, self._state(progress))
        checkpoint.point(self.run_dir, progress.step, progress.best.step)
        checkpoint.prune(self.run_dir, self.train.keep_checkpoint_max, progress.best.step)
        self.reporter.saved(progress.step, path)

    def path(self, step: int | None) -> Path | None:
        """Returns the folder of the checkpoint of `step`, None without one."""
        return None if self.run_dir is None or step is None else self.run_dir / checkpoint.folder_name(step)

    def _find(self) -> checkpoint.Checkpoint | None:
        resume = self.runtime.resume
        if self.run_dir is None:
            if resume == "must":
                raise ModelError("resume=must needs a run folder", fix="give the folder of the run to continue")
            return None
        if resume == "must":
            return checkpoint.load(checkpoint.resolve(self.run_dir / "model.ckpt-last"))
        if resume == "auto":
            return checkpoint.newest(self.run_dir, self.reporter.message)
        if checkpoint.steps(self.run_dir) and not self.runtime.overwrite:
            raise ConfigError(
                f"{self.run_dir} holds checkpoints of another run",
                fix="use --resume=must to continue it, or --overwrite to replace it",
            )
        if self.writes:
            checkpoint.clear(self.run_dir)
        return None

    def _restore(self, found: checkpoint.Checkpoint, progress: Progress) -> None:
        state = found.state
        for name, now in self._course().items():
            if state[name] != now and name == "total_steps":
                self.reporter.message(
                    f"the resumed run was planned for {state[name]} steps, now for {now}; "
                    "the learning-rate schedule follows the new plan"
                )
            elif state[name] != now:
                raise ConfigError(
                    f"the run in {self.run_dir} was made with {name}={state[name]}",
                    received=now,
                    fix="resume with the same table, batch size, accumulation and seed, or start a new run",
                )
        self._check_stages(state.get("stages", [[self.plan.spans[0].name, 0]]), state["step"])
        self._check_frozen(state.get("frozen", {}))
        self._assign(found)
        self._enter(state["step"])
        self.engine.restore(found.training, str(found.path))
        self._keep_decay(state.get("no_decay", {}))
        self.engine.task.restore_state(state["task"])
        progress.best.restore(state["best"])
        progress.step = progress.saved_step = state["step"]
        progress.metrics, progress.evaluated_step = state["metrics"], state["evaluated_step"]

    def _enter(self, step: int) -> None:
        """Has the engine be in the stage of step `step`, whose optimizer state the checkpoint holds."""
        number = self.plan.stage_of(step)
        if number:
            self.engine.enter(self.plan.stages[number], self.plan.spans[number])

    def _check_stages(self, stored: list[list[Any]], step: int) -> None:
        """Refuses to go on where the stages that were begun are now others; later ones may be."""
        plans = (stored, self._begins())
        before, now = (", ".join(f"{name} after step {at}" for name, at in plan if at < max(step, 1)) for plan in plans)
        if before != now:
            raise ConfigError(
                f"the run in {self.run_dir} was made with the stages {before}",
                received=now,
                fix="resume with the settings it was started with, or start a new run",
            )

    def _check_frozen(self, stored: dict[str, dict[str, Any]]) -> None:
        """Refuses to go on with another network of another run; older runs did not store them."""
        for role, record in self.engine.task.frozen_records().items():
            if role in stored and stored[role]["sha256"] != record["sha256"]:
                raise another_network(role, record["path"])

    def _begins(self) -> list[list[Any]]:
        return [[span.name, span.start] for span in self.plan.spans]

    def _keep_decay(self, stored: dict[str, list[str]]) -> None:
        """Goes on with the weight decay the run was started with; older runs did not store what it leaves out."""
        for name, optimizer in self.engine.optimizers.items():
            now, before = optimizer.no_decay, optimizer.decays
            optimizer.leave_out(stored.get(name, FORMER_NO_DECAY))
            if optimizer.decays == before:
                optimizer.leave_out(now)
                continue
            different = sum(new != old for new, old in zip(before, optimizer.decays, strict=True))
            self.reporter.message(
                "the run was started with another rule of weight decay and keeps it: a new run would decay "
                f"{different} of {len(before)} weights differently"
            )

    def _assign(self, found: checkpoint.Checkpoint) -> None:
        """Sets the model's weights, or those of this worker's stage."""
        checkpoint.check_base(self.base, found)
        weights, positions = found.weights, self.engine.positions
        if self.workers.stage is not None:
            weights = dict(list(weights.items())[positions.start : positions.stop])
        assign_arrays(without_base(self.engine.task.model.weights), weights, str(found.path))

    def _course(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        return {
            "seed": self.runtime.seed,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "num_accumulated_batches": self.plan.accumulated,
            "total_steps": self.plan.total_steps,
        }

    def _state(self, progress: Progress) -> dict[str, Any]:
        epoch, batch = self.plan.position(progress.step)
        scale = self.engine.loss_scale
        return {
            **self._course(),
            "stage": self.engine.stage.name,
            "stages": self._begins(),
            "frozen": self.engine.task.frozen_records(),
            "base": self.base,
            "epoch": epoch,
            "batch_in_epoch": batch,
            "no_decay": {name: list(optimizer.no_decay) for name, optimizer in self.engine.optimizers.items()},
            "averaged_weights": bool(self.engine.averages.decay),
            "loss_scale": None if scale is None else float(scale.value.numpy()),
            "skipped_steps": int(self.engine.skipped.numpy()),
            "best": progress.best.state(),
            "metrics": progress.metrics,
            "evaluated_step": progress.evaluated_step,
            "task": self.engine.task.state(),
            "versions": package_versions(),
        }


def another_network(role: str, path: str) -> ConfigError:
    """Returns the error of a run that would go on with another network of another run than it was started with."""
    return ConfigError(
        f"the {role} {path} is not the one this run was started with", fix="put the old one back, or start a new run"
    )
