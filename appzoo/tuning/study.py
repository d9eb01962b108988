"""A study: Optuna chooses settings, trials run as processes, evaluations prune, and all of it survives a kill."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from appzoo.tuning.report import BEST_CONFIG, PAGE, PICTURES, say_trial, shown_values, write_report
from appzoo.tuning.space import Space, with_values
from appzoo.tuning.trial import PROGRAM, TrialRun, differing
from easytransfer.config.files import dump
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, EasyTransferError, Interrupted, ModelError
from easytransfer.installing import install_line
from easytransfer.metrics.names import higher_is_better
from easytransfer.run.atomic import plain, write_json
from easytransfer.run.comparison import flat
from easytransfer.run.folder import CONFIG_FILE, RunFolder
from easytransfer.run.lock import FolderLock, check_space
from easytransfer.run.log import say, warn
from easytransfer.train.signals import StopRequest

if TYPE_CHECKING:
    import optuna

STUDY_FILE, STORAGE_FILE, TRIALS_FOLDER = "study.json", "study.db", "trials"
# Trials that fail one after the other, with none that did not, before the study gives up.
_FAILURES = 3
_POLL_S = 0.2


@dataclass(frozen=True)
class StudyOptions:
    """How a study searches.

    Attributes:
        trials: Trials in all, those of earlier starts included.
        parallel: Trials that run at the same time.
        startup: Trials at random before the sampler learns from them, and complete ones before any is pruned.
        sampler: `tpe` (tree-structured Parzen estimator, Bergstra et al., NeurIPS 2011) or `random`.
        pruner: `median` ends a trial whose best evaluation so far is worse than the median of those of the earlier
            trials after as many evaluations; `none` ends none.
        program: Command that takes the arguments of `easy_transfer_app`.
    """

    trials: int
    parallel: int = 1
    startup: int = 5
    sampler: str = "tpe"
    pruner: str = "median"
    program: Sequence[str] = PROGRAM


def require_optuna() -> None:
    """Raises a ConfigError where Optuna is missing; silences what it tells beside us."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("tune needs Optuna, which is not installed", fix=install_line("tune")) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_plan(folder: Path, resume: str, overwrite: bool) -> bool:
    """Returns whether the study in a folder goes on.

    Raises:
        ConfigError: The folder holds a run, or no study to go on with, or one that may not go on.
    """
    if (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{folder} holds a run, not a study", fix="choose another checkpointDir for the study")
    there = (folder / STUDY_FILE).is_file()
    if resume == "must" and not there:
        raise ConfigError(f"no study to resume in {folder}", fix="use --resume=auto to start one")
    if resume == "never" and there and not overwrite:
        raise ConfigError(f"{folder} holds a study already", fix="--overwrite replaces it; or another checkpointDir")
    return there and not overwrite


def tune(
    config: JobConfig, space: Space, options: StudyOptions, metric: str, inputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Runs or goes on with a study in `checkpoint_dir`.

    Args:
        config: Configuration of all trials, but for what is searched.
        space: What is searched.
        options: How.
        metric: The metric that is made best, of the evaluation of the exported checkpoint.
        inputs: Records of the tables, see `input_records`; a study goes on with the same tables only.

    Returns:
        The study folder, how its trials ended, and number, metric, settings, run folder and configuration of the best.

    Raises:
        ConfigError: The folder holds a study with other settings, ranges or tables.
        Interrupted: A signal came; running trials were told to save, and the same command goes on.
        EasyTransferError: Trials fail one after the other.
    """
    folder = Path(str(config.checkpoint_dir))
    check_space(folder, 0)
    goes_on = study_plan(folder, config.runtime.resume, config.runtime.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        if not goes_on:
            _remove(folder)
        runtime = config.runtime.model_copy(update={"resume": "auto", "overwrite": False, "dry_run": False})
        base = config.model_copy(update={"runtime": runtime})
        record = _record(base, space, metric, inputs)
        if goes_on:
            _check_same(folder, RunFolder(folder).read_json(STUDY_FILE), record)
        write_json(folder / STUDY_FILE, record)
        return Search(folder, base, space, options, metric).run()
    finally:
        lock.close()


def _record(config: JobConfig, space: Space, metric: str, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    searched = {path: str(dimension) for path, dimension in space.items()}
    tables = {f"{item['table']} {item['path']}": item["sha256"] for item in inputs}
    record: dict[str, Any] = plain(
        {"metric": metric, "space": searched, "tables": tables, "config": dump(config, "train")}
    )
    return record


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with a study of something else: its trials would not compare."""
    old = {**flat(before["config"]), **{f"--search {path}": text for path, text in before["space"].items()}}
    new = {**flat(now["config"]), **{f"--search {path}": text for path, text in now["space"].items()}}
    shown = differing(old, new)
    # A table that lies elsewhere now is the same table.
    if not shown and sorted(before["tables"].values()) != sorted(now["tables"].values()):
        shown = [path for path, digest in now["tables"].items() if digest not in before["tables"].values()]
        shown = [f"changed since: {path}" for path in shown or now["tables"]]
    if shown:
        raise ConfigError(
            f"{folder} holds a study of something else ({', '.join(shown)})",
            fix="--overwrite replaces it; or another checkpointDir",
        )


def _remove(folder: Path) -> None:
    """Removes the study that is there; anything else in the folder is left alone."""
    shutil.rmtree(folder / TRIALS_FOLDER, ignore_errors=True)
    for name in (STUDY_FILE, STORAGE_FILE, f"{STORAGE_FILE}-journal", BEST_CONFIG, PAGE, *PICTURES):
        (folder / name).unlink(missing_ok=True)


class Search:
    """The loop of a study.

    Args:
        folder: Of the study.
        config: Configuration of all trials, but for what is searched.
        space: What is searched.
        options: How.
        metric: What is made best.
    """

    def __init__(self, folder: Path, config: JobConfig, space: Space, options: StudyOptions, metric: str) -> None:
        import optuna

        self._optuna, self._states = optuna, optuna.trial.TrialState
        self.folder, self.config, self.space, self.options, self.metric = folder, config, space, options, metric
        self._distributions = {path: dimension.distribution() for path, dimension in space.items()}
        pruners = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=options.startup),
            "none": optuna.pruners.NopPruner(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Alembic of several versions, and SQLAlchemy's notices
            self.study: optuna.Study = optuna.create_study(
                storage=f"sqlite:///{(folder / STORAGE_FILE).absolute()}",
                study_name="study",
                direction="maximize" if higher_is_better(metric) else "minimize",
                pruner=pruners[options.pruner],
                load_if_exists=True,
            )
        (folder / TRIALS_FOLDER).mkdir(exist_ok=True)
        self._running: list[tuple[optuna.Trial, TrialRun]] = []
        self._failures = 0

    def run(self) -> dict[str, Any]:
        """Goes on until there are as many trials as wanted."""
        with StopRequest() as stop:
            self._take_up()
            try:
                self._loop(stop)
            finally:
                self._stop_all()
                report = write_report(self.study, self.folder, self.config, self.space, self.metric)
        if "best" not in report:
            raise EasyTransferError(
                f"no trial of {self.folder} came to its end", fix="see the .log files of its trials"
            )
        return report

    def _loop(self, stop: StopRequest) -> None:
        while stop.received is None:
            while len(self._running) < self.options.parallel and self._asks_for_more():
                self._start_next()
            if not self._running:
                return
            for trial, run in list(self._running):
                self._look(trial, run)
            time.sleep(_POLL_S)
        self._stop_all()
        done = sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))
        raise Interrupted(
            f"{stop.received} stopped the study with {done} of {self.options.trials} trials; running ones are saved",
            fix="type the same command again to go on",
        )

    def _asks_for_more(self) -> bool:
        return len(self.study.get_trials(deepcopy=False)) < self.options.trials

    def _take_up(self) -> None:
        """Takes up the trials that an earlier start of the study left running."""
        known = self.study.get_trials(deepcopy=False)
        if known:
            ended = sum(trial.state.is_finished() for trial in known)
            say(f"the study goes on: {ended} of {self.options.trials} trials have ended")
        for frozen in known:
            if frozen.state != self._states.RUNNING:
                continue
            trial = self._optuna.Trial(self.study, frozen._trial_id)
            run = self._run_of(frozen.number)
            self._running.append((trial, run))
            if not run.ended():
                say(f"trial {run.number} still runs: waiting for it")
            elif not run.is_done() and "pruned" not in frozen.user_attrs:
                self._begin(trial, run)

    def _run_of(self, number: int) -> TrialRun:
        return TrialRun(number, self.folder / TRIALS_FOLDER / f"{number:04d}")

    def _start_next(self) -> None:
        number = len(self.study.get_trials(deepcopy=False))
        trial = self._ask(number)
        run = self._run_of(trial.number)
        self._running.append((trial, run))
        self._begin(trial, run)

    def _ask(self, number: int) -> optuna.Trial:
        """Returns a new trial; what it is depends on seed, number and earlier trials, so a study that goes on is one.

        Args:
            number: Its number.
        """
        words = np.random.SeedSequence([self.config.runtime.seed % 2**32, number]).generate_state(1)
        samplers, seed = self._optuna.samplers, int(words[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            self.study.sampler = (
                samplers.RandomSampler(seed=seed)
                if self.options.sampler == "random"
                else samplers.TPESampler(seed=seed, n_startup_trials=self.options.startup, constant_liar=True)
            )
        return self.study.ask(self._distributions)

    def _begin(self, trial: optuna.Trial, run: TrialRun) -> None:
        """Starts the training of a trial, or continues it."""
        # A study killed while it asked has a trial without all of its values.
        values = {path: trial._suggest(path, distribution) for path, distribution in self._distributions.items()}
        shown = shown_values(values)
        try:
            run.write_config(with_values(self.config, values, f"trial {run.number}"))
        except ConfigError as error:
            self._running.remove((trial, run))
            self._fail(trial, run, str(error))
            return
        known = run.folder.is_dir()
        say(f"trial {run.number} {'goes on' if known else 'starts'}: {shown}", trial=run.number, params=values)
        run.start(self.options.program, self.options.parallel)

    def _look(self, trial: optuna.Trial, run: TrialRun) -> None:
        """Passes on new evaluations of a trial, prunes it, or takes its end."""
        ended = run.ended()  # first, so that what it wrote before its end is seen
        frozen = self.study.get_trials(deepcopy=False)[run.number]
        for number, value in enumerate(run.evaluations(self.metric), 1):
            if number not in frozen.intermediate_values:
                trial.report(value, number)
                if not ended and not run.stopping and trial.should_prune():
                    trial.set_user_attr("pruned", number)
                    run.stop("pruned")
        if not ended:
            return
        self._running.remove((trial, run))
        if run.is_done():
            self._complete(trial, run)
        elif "pruned" in trial.user_attrs:
            self.study.tell(trial, state=self._states.PRUNED)
            say_trial(self.study, run.number, self.metric)
        elif run.stopping != "interrupted":
            self._after_loss(trial, run)

    def _complete(self, trial: optuna.Trial, run: TrialRun) -> None:
        report = run.result()
        value = report["metrics"].get(self.metric)
        if value is None or not math.isfinite(value):
            self._fail(trial, run, f"{self.metric} is no number in {run.folder}")
            return
        trial.set_user_attr("metrics", plain(report["metrics"]))
        self.study.tell(trial, float(value))
        self._failures = 0
        say_trial(self.study, run.number, self.metric)
        write_report(self.study, self.folder, self.config, self.space, self.metric, pictures=False)

    def _after_loss(self, trial: optuna.Trial, run: TrialRun) -> None:
        """Continues a trial whose process was killed, once; counts it as failed otherwise."""
        code = None if run.process is None else run.process.returncode
        lost = code is None or code < 0 or code == Interrupted.exit_code
        if lost and not trial.user_attrs.get("lost"):
            if code is not None:
                trial.set_user_attr("lost", 1)
                warn(f"trial {run.number} was killed (exit code {code}); it goes on from its last checkpoint")
            again = self._run_of(run.number)
            self._running.append((trial, again))
            self._begin(trial, again)
            return
        self._fail(trial, run, run.failure())

    def _fail(self, trial: optuna.Trial, run: TrialRun, why: str) -> None:
        trial.set_user_attr("error", why)
        self.study.tell(trial, state=self._states.FAIL)
        say_trial(self.study, run.number, self.metric)
        self._failures += 1
        if self._failures >= _FAILURES and not any(
            known.state in (self._states.COMPLETE, self._states.PRUNED)
            for known in self.study.get_trials(deepcopy=False)
        ):
            raise ModelError(
                f"the first {self._failures} trials failed, the last one with: {why}",
                fix=f"see {run.log} and the others",
            )

    def _stop_all(self) -> None:
        """Tells all trials to save and waits for them; whatever ended in the meantime is taken at the next start."""
        for _, run in self._running:
            run.stop("interrupted")
        for _, run in self._running:
            if run.process is not None:
                run.process.wait()
        self._running.clear()
