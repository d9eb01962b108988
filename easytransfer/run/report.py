"""What a running training tells: `metrics.jsonl`, TensorBoard, a progress line with ETA, evaluation lines."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from easytransfer.run import log
from easytransfer.run.environment import memory_mb
from easytransfer.run.folder import EVALUATION_FILE, RunFolder
from easytransfer.run.history import History, read_history
from easytransfer.run.progress import Progress, format_numbers, format_seconds
from easytransfer.run.tracking import Tracking

# Numbers on the progress line beside the losses; the others are in metrics.jsonl.
_SHOWN = ("rows_per_s", "tokens_per_s", "lr", "memory_mb")
_NOT_METRICS = ("event", "step", "time", "is_best", "stage")


class Reporter(Protocol):
    """Where the trainer reports to. Only the first worker has a reporter that shows anything."""

    def start(self, total_steps: int, start_step: int = 0) -> None:
        """Training begins after `start_step` of `total_steps` steps."""

    def stage(self, names: Sequence[str], number: int, step: int) -> None:
        """Stage `number`, from 0, of the stages `names` goes on after `step` steps; called where there are several."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """`step` steps are done; called at every log interval.

        Args:
            step: Optimizer steps done since the very start of training.
            metrics: `loss` and `lr`, usually `epoch`, further losses by name, and either the rates `rows_per_s` and
                `tokens_per_s` or the counts `rows` and `tokens` since the last call, from which rates are computed.
        """

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """An evaluation after `step` steps gave `metrics`; `is_best` among them marks a new best."""

    def saved(self, step: int, path: str | os.PathLike[str]) -> None:
        """A checkpoint was written."""

    def message(self, text: str) -> None:
        """Something the user should know."""

    def end(self, status: str) -> None:
        """Training ended: `done`, `interrupted`, `early_stopped` or `failed`."""


class NullReporter:
    """Reports nothing: workers other than the first, and tests."""

    def start(self, total_steps: int, start_step: int = 0) -> None:
        """Does nothing."""

    def stage(self, names: Sequence[str], number: int, step: int) -> None:
        """Does nothing."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Does nothing."""

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Does nothing."""

    def saved(self, step: int, path: str | os.PathLike[str]) -> None:
        """Does nothing."""

    def message(self, text: str) -> None:
        """Does nothing."""

    def end(self, status: str) -> None:
        """Does nothing."""


class RunReporter:
    """The reporter of a real run.

    Args:
        folder: Run folder for `metrics.jsonl`, `evaluation.json` and `events/`; None shows progress only.
        log_format: `text` or `json` lines on stderr.
        tensorboard: Write TensorBoard events.
        live: Show a live bar; default: when stderr is a terminal.
        tracking: Trackers that get the records of `metrics.jsonl`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        *,
        log_format: Literal["text", "json"] = "text",
        tensorboard: bool = True,
        live: bool | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        self._folder = Path(folder) if folder is not None else None
        self._log_format = log_format
        self._tensorboard = tensorboard
        self._live = live
        self._tracking = tracking or Tracking()
        self._stack = contextlib.ExitStack()
        self._history: History | None = None
        self._progress: Progress | None = None
        self._begin = self._mark = time.monotonic()
        # What every record says of the stage: nothing where there is one only.
        self._stage: dict[str, str] = {}

    def start(self, total_steps: int, start_step: int = 0) -> None:
        """Opens the history (cut back to `start_step`) and the progress line."""
        self._begin = self._mark = time.monotonic()
        if self._folder is not None:
            self._tracking.begin(read_history(self._folder), start_step)
            self._history = History(self._folder, start_step=start_step, tensorboard=self._tensorboard)
            self._stack.callback(self._history.close)
            self._restart_evaluations(self._folder, self._history.kept)
        if start_step and start_step >= total_steps:
            log.say(f"all {total_steps} steps are done: nothing to train", step=start_step, total=total_steps)
        elif start_step:
            log.say(f"resuming after step {start_step} of {total_steps}", step=start_step, total=total_steps)
        self._progress = self._stack.enter_context(
            Progress("train", total_steps, done=start_step, log_format=self._log_format, live=self._live)
        )

    def stage(self, names: Sequence[str], number: int, step: int) -> None:
        """Shows which stage goes on; records and progress lines name it from here on."""
        self._mark = time.monotonic()
        self._stage = {"stage": names[number]}
        place = f"stage {names[number]}, {number + 1} of {len(names)}"
        log.say(f"{place}, goes on after step {step}", step=step, **self._stage)
        if self._progress:
            self._progress.enter(f"train {names[number]}")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records and shows one log interval."""
        numbers = dict(metrics)
        now = time.monotonic()
        # Evaluations and checkpoints reset the mark, so their time does not count as training time.
        seconds = max(now - self._mark, 1e-9)
        self._mark = now
        for name in ("rows", "tokens"):
            if name in numbers:
                numbers.setdefault(f"{name}_per_s", numbers.pop(name) / seconds)
        numbers["memory_mb"] = memory_mb()
        if self._history:
            self._tracking.add(self._history.append("step", step, {**numbers, **self._stage}))
        if self._progress:
            shown = {name: value for name, value in numbers.items() if name in _SHOWN or name.endswith("loss")}
            self._progress.update(step, **shown)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records and shows one evaluation."""
        self._mark = time.monotonic()
        numbers = dict(metrics)
        if self._history:
            self._tracking.add(self._history.append("evaluation", step, {**numbers, **self._stage}))
        is_best = bool(numbers.pop("is_best", False))
        if self._folder is not None:
            RunFolder(self._folder).write_evaluation(step, numbers, is_best=is_best)
        text = "  ".join(format_numbers(numbers)) + ("  (best so far)" if is_best else "")
        log.say(f"evaluation after step {step}: {text}", step=step, **metrics)

    def _restart_evaluations(self, folder: Path, kept: list[dict[str, Any]]) -> None:
        """Makes `evaluation.json` say what the kept history says: later evaluations are made again."""
        (folder / EVALUATION_FILE).unlink(missing_ok=True)
        for record in kept:
            if record["event"] == "evaluation":
                numbers = {name: value for name, value in record.items() if name not in _NOT_METRICS}
                is_best = bool(record.get("is_best"))
                RunFolder(folder).write_evaluation(record["step"], numbers, is_best=is_best)

    def saved(self, step: int, path: str | os.PathLike[str]) -> None:
        """Notes a checkpoint; shown in the JSON form only, as the run folder lists them."""
        self._mark = time.monotonic()
        if self._log_format == "json":
            log.write_line(log.json_line("saved", {"step": step, "path": os.fspath(path)}))

    def message(self, text: str) -> None:
        """Shows a line."""
        log.say(text)

    def end(self, status: str) -> None:
        """Closes the progress line and the files; further calls do nothing."""
        if self._progress is None:
            return
        done = self._progress.done
        self._stack.close()
        self._progress = self._history = None
        seconds = time.monotonic() - self._begin
        log.say(f"training {status.replace('_', ' ')} after step {done}, {format_seconds(seconds)}", status=status)


def say_where(places: Mapping[str, str | os.PathLike[str]], commands: Mapping[str, str] | None = None) -> None:
    """Prints where the files of a finished job are and the commands to type next.

    Args:
        places: Path by what it is, such as `best checkpoint`.
        commands: Command line by what it does, the most useful one first.
    """
    width = max((len(name) for name in [*places, *(commands or {})]), default=0)
    for name, place in places.items():
        log.say(f"  {name:<{width}}  {os.fspath(place)}", place=name, path=os.fspath(place))
    if commands:
        log.say("next:")
        for name, command in commands.items():
            log.say(f"  {name:<{width}}  {command}", command=command, does=name)
