"""Runs an experiment: trainings as processes, arm by arm and seed by seed; what has ended is not repeated."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appzoo.experiment.plan import PlannedArm
from appzoo.tuning.trial import PROGRAM, TrialRun, differing, result_of
from easytransfer.config.files import dump
from easytransfer.config.job import JobConfig
from easytransfer.config.json_text import parse_json
from easytransfer.data.files import expand, stamps
from easytransfer.errors import BY_EXIT_CODE, ConfigError, EasyTransferError, Interrupted
from easytransfer.run.atomic import plain, write_json
from easytransfer.run.comparison import flat
from easytransfer.run.folder import CONFIG_FILE, RunFolder
from easytransfer.run.lock import FolderLock, check_space
from easytransfer.run.log import say, warn
from easytransfer.savedmodel.loading import find_exported, is_exported
from easytransfer.train.signals import StopRequest

MEASURE = (sys.executable, "-m", "appzoo.experiment.cost")
VECTORS = (sys.executable, "-m", "appzoo.experiment.domains")
_POLL_S = 0.2
# Of what describes a table, the settings by which a finished run reads the evaluation table.
_READING = (
    *("input_schema", "first_sequence", "second_sequence", "label_name", "delimiter", "encoding", "header", "escape"),
    *("bad_rows", "max_bad_rows"),
)


@dataclass(frozen=True)
class Processes:
    """Commands that an experiment starts.

    Attributes:
        program: Takes the arguments of `easy_transfer_app`.
        measure: Takes the folder of an export, prints what it costs.
        vectors: Takes a file of `appzoo.experiment.domains`, prints points.
    """

    program: Sequence[str] = PROGRAM
    measure: Sequence[str] = MEASURE
    vectors: Sequence[str] = VECTORS


@dataclass
class ArmResult:
    """What came out of an arm.

    Attributes:
        name: Of the arm.
        what: What it is, in few words.
        runs: Its run folders by seed; empty for a finished run.
        metrics: Metrics by seed of the evaluation of the exported weights; of a finished run one under None.
        metric: The main one; None for a finished run.
        cost: What its export costs, see `appzoo.experiment.cost`; None where that could not be measured.
    """

    name: str
    what: str
    runs: dict[int, Path] = field(default_factory=dict)
    metrics: dict[int | None, Mapping[str, float | None]] = field(default_factory=dict)
    metric: str | None = None
    cost: dict[str, Any] | None = None


def run_experiment(
    folder: Path,
    arms: Sequence[PlannedArm],
    seeds: Sequence[int],
    inputs: Sequence[Mapping[str, Any]],
    *,
    resume: str = "auto",
    overwrite: bool = False,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> list[ArmResult]:
    """Runs or goes on with an experiment.

    Args:
        folder: Of the experiment.
        arms: Its arms.
        seeds: Its seeds.
        inputs: Records of the tables, see `table_records`; finished runs are only taken with the same.
        resume: `never` refuses a folder with runs of these arms, `must` one without.
        overwrite: Remove the runs of these arms and seeds, and train anew.
        processes: Commands that are started.

    Raises:
        ConfigError: The folder holds a run, or runs of these arms with other settings or tables.
        Interrupted: A signal came; the running training was told to save, and the same command goes on.
        EasyTransferError: A training failed.
    """
    if (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{folder} holds a run, not an experiment", fix="choose another --outputDir")
    runs = {
        (arm.name, seed): TrialRun(number, folder / f"{arm.name}-{seed}")
        for number, (seed, arm) in enumerate((seed, arm) for seed in seeds for arm in arms if arm.config is not None)
    }
    check_space(folder, 0)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        if overwrite:
            _remove(folder, arms, runs.values())
        there = any(run.config.is_file() for run in runs.values())
        if resume == "never" and there:
            raise ConfigError(f"{folder} holds runs of these arms already", fix="--overwrite replaces them")
        if resume == "must" and not there:
            raise ConfigError(f"no experiment to resume in {folder}", fix="use --resume=auto to start one")
        with StopRequest() as stop:
            return _Experiment(folder, arms, runs, processes, stop).run(inputs)
    finally:
        lock.close()


def _remove(folder: Path, arms: Sequence[PlannedArm], runs: Iterable[TrialRun]) -> None:
    """Removes what an earlier experiment made of these arms; anything else in the folder is left alone."""
    for run in runs:
        if not run.ended():
            raise ConfigError(
                f"{run.folder} is still trained, by an experiment that was killed", fix="wait for its end"
            )
        if run.config.is_file():
            shutil.rmtree(run.folder, ignore_errors=True)
            for path in (run.config, run.log):
                path.unlink(missing_ok=True)
    for arm in arms:
        for path in (_cost_file(folder, arm.name), _evaluation_file(folder, arm.name)):
            path.unlink(missing_ok=True)


def _cost_file(folder: Path, arm: str) -> Path:
    return folder / f"{arm}-cost.json"


def _evaluation_file(folder: Path, arm: str) -> Path:
    return folder / f"{arm}-evaluation.json"


def run_config(config: JobConfig, seed: int) -> JobConfig:
    """Returns the configuration of one training of an arm, but for its folder."""
    values = {"seed": seed, "resume": "auto", "overwrite": False, "dry_run": False}
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=values)})


class _Experiment:
    def __init__(
        self,
        folder: Path,
        arms: Sequence[PlannedArm],
        runs: Mapping[tuple[str, int], TrialRun],
        processes: Processes,
        stop: StopRequest,
    ) -> None:
        self._folder, self._arms, self._runs = folder, {arm.name: arm for arm in arms}, runs
        self._processes, self._stop = processes, stop

    def run(self, inputs: Sequence[Mapping[str, Any]]) -> list[ArmResult]:
        """Trains what has not ended, measures, and returns the results in the order of the arms."""
        configs = {key: run_config(self._arms[key[0]].config, key[1]) for key in self._runs}
        for key, run in self._runs.items():
            self._check_same(run, configs[key], inputs)
        for number, (key, run) in enumerate(self._runs.items(), 1):
            self._complete(run, configs[key], f"{number} of {len(self._runs)}, {key[0]} with seed {key[1]}")
        return [self._result(arm) for arm in self._arms.values()]

    def _check_same(self, run: TrialRun, config: JobConfig, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Refuses a run of other settings or tables: it would not compare."""
        if not run.config.is_file():
            if run.folder.exists():
                raise ConfigError(f"{run.folder} is not of an experiment", fix="choose another --outputDir")
            return
        before = parse_json(run.config.read_text(encoding="utf-8"))
        if other := differing(flat(before), flat(plain(dump(config, "train")))):
            raise ConfigError(
                f"{run.folder} is of other settings ({', '.join(other)})",
                fix="--overwrite trains it anew; or another --outputDir",
            )
        if run.is_done():
            found = RunFolder(run.folder)
            found.plan(found.config, inputs=inputs)

    def _complete(self, run: TrialRun, config: JobConfig, what: str) -> None:
        """Trains a run to its end, or waits for one that an earlier start left running."""
        if not run.ended():
            say(f"run {what} still runs: waiting for it")
            self._wait(run)
        if run.is_done():
            say(f"run {what} is complete")
            return
        say(f"run {what} {'goes on' if run.folder.is_dir() else 'starts'}; its messages are in {run.log}")
        run.write_config(config)
        run.start(self._processes.program, 1)
        self._wait(run)
        if run.is_done():
            return
        code = run.process.returncode
        if code < 0 or code == Interrupted.exit_code:
            raise Interrupted(f"run {what} was stopped (exit code {code})", fix="type the same command again to go on")
        kind = BY_EXIT_CODE.get(code, EasyTransferError)
        raise kind(f"run {what} failed: {run.failure()}; see {run.log}; the same command goes on with the others done")

    def _wait(self, run: TrialRun) -> None:
        while not run.ended():
            if self._stop.received is not None:
                run.stop("interrupted")
                if run.process is not None:
                    run.process.wait()
                self._check_stop()
            time.sleep(_POLL_S)

    def _result(self, arm: PlannedArm) -> ArmResult:
        found = ArmResult(arm.name, arm.what)
        if arm.finished is not None:
            found.metrics[None] = self._evaluated(arm.name, arm.finished)
            found.cost = self._cost(arm.name, arm.finished)
            return found
        for (name, seed), run in self._runs.items():
            if name == arm.name:
                report = run.result()
                found.runs[seed], found.metrics[seed], found.metric = run.folder, report["metrics"], report["metric"]
        # All seeds have the same network.
        found.cost = self._cost(arm.name, next(iter(found.runs.values())))
        return found

    def _cost(self, name: str, place: Path) -> dict[str, Any] | None:
        """Returns what the export of a run, or an export itself, costs."""
        export = _export_of(place)
        if export is None:
            warn(f"{place} has no export: size and time of {name} are not measured")
            return None
        key = {"export": str(export), "files": stamps([str(export)])}
        try:
            return kept(_cost_file(self._folder, name), key, lambda: self._measured(name, export))
        except Interrupted:
            raise
        except EasyTransferError as error:
            warn(f"size and time of {name} could not be measured: {error}")
            return None

    def _measured(self, name: str, export: Path) -> dict[str, Any]:
        say(f"measuring the export of {name}")
        return self._child([*self._processes.measure, str(export)], f"the measurement of {export}")

    def _evaluated(self, name: str, finished: Path) -> dict[str, float | None]:
        """Returns the metrics of a finished run on the evaluation table of the trainings."""
        config = next(arm.config for arm in self._arms.values() if arm.config is not None)
        data = config.data.model_dump(mode="json")
        # The export, as nothing is written beside it, and as it is what is measured.
        place = _export_of(finished) or finished
        job = {
            "mode": "evaluate",
            "checkpoint_path": str(place),
            "data": {
                "input_table": data["eval_table"],
                **{key: data[key] for key in _READING if data[key] is not None},
            },
            "train": {"batch_size": config.train.eval_batch_size},
        }
        path = self._folder / f"{name}.json"
        write_json(path, job)

        def evaluate() -> dict[str, Any]:
            say(f"evaluating {place}")
            return self._child([*self._processes.program, "evaluate", "--config", str(path)], f"the arm {name}")

        key = {"job": job, "files": stamps([str(place), *expand(data["eval_table"])])}
        metrics: dict[str, float | None] = kept(_evaluation_file(self._folder, name), key, evaluate)["metrics"]
        return metrics

    def _child(self, command: Sequence[str], what: str) -> dict[str, Any]:
        """Runs a command that prints JSON; a Ctrl-C reaches it too, and what it says of that is not told."""
        self._check_stop()
        try:
            return result_of(command, what)
        except EasyTransferError:
            self._check_stop()
            raise

    def _check_stop(self) -> None:
        if self._stop.received is None:
            return
        done = sum(run.is_done() for run in self._runs.values())
        raise Interrupted(
            f"{self._stop.received} stopped the experiment with {done} of {len(self._runs)} runs",
            fix="type the same command again to go on",
        )


def _export_of(place: Path) -> Path | None:
    """Returns the export of a run folder, checkpoint, or the export itself."""
    runs = [folder for folder in (place, place.parent) if (folder / CONFIG_FILE).is_file()]
    export = runs[0] / "export" if runs else place
    return find_exported(export) if is_exported(export) else None


def kept(path: Path, key: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what is in a file under the same key, else makes it and writes the file."""
    key = plain(key)
    found = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if found.get("key") != key:
        found = {"key": key, "result": make()}
        write_json(path, found)
    result: dict[str, Any] = found["result"]
    return result
