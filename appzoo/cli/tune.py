"""The verb `tune`: reads and checks a study, then lets `appzoo.tuning` run it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appzoo.cli.checks import check_job
from appzoo.cli.reader import Job, JobReader
from appzoo.cli.text import TUNE_HELP, VERBS
from appzoo.tuning.space import FORM, read_space, with_values
from appzoo.tuning.study import STUDY_FILE, TRIALS_FOLDER, StudyOptions, require_optuna, study_plan
from appzoo.tuning.study import tune as run_study
from appzoo.tuning.trial import PROGRAM, result_of
from easytransfer.config.files import dump
from easytransfer.config.flags import Given, split_flags
from easytransfer.config.job import JobConfig
from easytransfer.data.files import table_records
from easytransfer.errors import ConfigError
from easytransfer.run import log
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder

SAMPLERS, PRUNERS = ("tpe", "random"), ("median", "none")
_NUMBERS = {"trials": 20, "parallel": 1, "startup": 5}
_WORDS = {"sampler": SAMPLERS, "pruner": PRUNERS}


def tune(arguments: Sequence[str]) -> int:
    """Runs one command line of `tune` and returns the exit code.

    Raises:
        ConfigError: A flag, range or setting is wrong, or Optuna is missing.
        DataError: A table cannot be used.
        Interrupted: A signal stopped the study; the same command goes on.
    """
    if {"-h", "--help"} & set(arguments):
        named = {"samplers": " or ".join(SAMPLERS), "pruners": " or ".join(PRUNERS)}
        log.print_result(TUNE_HELP.format(text=VERBS["tune"], form=FORM, **named))
        return 0
    specs, rest = split_search(arguments)
    options, rest = split_options(rest)
    job = read_trainings(rest, "tune", TRIALS_FOLDER)
    space = read_space(specs, job.config, job.given)
    require_optuna()
    folder = Path(str(job.config.checkpoint_dir))
    goes_on = study_plan(folder, job.config.runtime.resume, job.config.runtime.overwrite)
    if goes_on and not job.config.runtime.dry_run:
        metric = str(RunFolder(folder).read_json(STUDY_FILE)["metric"])
    else:
        metric = checked_metric(job.config, options.program)
    with log.results_only_stdout() as stdout:
        if job.config.runtime.dry_run:
            searched = {path: str(dimension) for path, dimension in space.items()}
            log.print_result({"mode": "tune", "dry_run": True, "metric": metric, "space": searched}, stdout)
            return 0
        log.print_result(run_study(job.config, space, options, metric, table_records(job.config)), stdout)
    return 0


def split_search(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns all that stands behind `--search`, and the other arguments.

    Raises:
        ConfigError: Nothing stands behind it.
    """
    specs: list[str] = []
    others: list[str] = []
    searching, found = False, 0
    for argument in arguments:
        if argument == "--search" or argument.startswith("--search="):
            searching, found = True, len(specs)
            specs += [argument.removeprefix("--search=")] if "=" in argument else []
        elif searching and not argument.startswith("--"):
            specs.append(argument)
        else:
            if searching and len(specs) == found:
                break
            searching = False
            others.append(argument)
    if searching and len(specs) == found:
        raise ConfigError("--search needs what is searched", accepted=FORM)
    return specs, others


def split_options(arguments: Sequence[str]) -> tuple[StudyOptions, list[str]]:
    """Returns the options of the study, and the arguments of its trainings.

    Raises:
        ConfigError: An option has a wrong value, or is given twice.
    """
    found: dict[str, Any] = {}
    others: list[str] = []
    for flag in split_flags(arguments):
        if flag.name not in {**_NUMBERS, **_WORDS}:
            others += [f"--{flag.name}" if flag.value is None else f"--{flag.name}={flag.value}"]
        elif flag.name in found:
            raise ConfigError(f"--{flag.name} is given twice")
        else:
            found[flag.name] = _option(flag)
    return StudyOptions(**{**_NUMBERS, **found}), others


def _option(flag: Given) -> int | str:
    text = flag.text()
    if flag.name in _WORDS:
        if text not in _WORDS[flag.name]:
            raise ConfigError(f"wrong value for --{flag.name}", received=text, accepted=_WORDS[flag.name])
        return text
    least = 0 if flag.name == "startup" else 1
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ConfigError(f"wrong value for --{flag.name}", received=text, accepted=f"a whole number from {least} on")
    return int(text)


def read_trainings(arguments: Sequence[str], verb: str, below: str = "") -> Job:
    """Reads what several trainings have in common, and checks all of it that needs no model.

    Args:
        arguments: Flags of `train`.
        verb: That runs them.
        below: Folder of the runs in `checkpoint_dir`.

    Raises:
        ConfigError: A flag or setting is wrong, or they are to run on other machines.
        EasyTransferError: See `check_job`.
    """
    notes: list[str] = []
    try:
        reader = JobReader("train", arguments, notes)
        if "configDump" in reader.options:
            raise ConfigError(f"{verb} has no --configDump", fix="easy_transfer_app train ... --configDump")
        job = reader.read()
        log.setup_logging(job.config.runtime.log_format)
    finally:
        for note in notes:
            log.warn(note)
    shares = job.config.distribution
    if shares.hosts or shares.hosts_script:
        raise ConfigError(
            f"{verb} runs its trainings on this machine", fix="leave out distribution.hosts and hosts_script"
        )
    folder = job.config.checkpoint_dir
    # A run folder that is not there yet, as that of the next training will be.
    values = {"checkpoint_dir": folder and str(Path(folder, below, "next"))}
    check_job(Job(job.mode, job.config.model_copy(update=values), None, job.given))
    return job


def checked_metric(config: JobConfig, program: Sequence[str] = PROGRAM) -> str:
    """Has a process make a dry run of the training, so that what is wrong with all trials is told once.

    Returns:
        The metric that picks the best checkpoint.

    Raises:
        EasyTransferError: What the dry run ends with.
    """
    runtime = {"dry_run": True, "resume": "auto", "overwrite": False, "log_format": "text"}
    values = {f"runtime.{name}": value for name, value in runtime.items()}
    log.say("checking flags, tables and model with a dry run")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dry.json")
        write_json(path, dump(with_values(config, {**values, "checkpoint_dir": str(Path(folder, "run"))}), "train"))
        command = [*program, "train", "--config", str(path)]
        return str(result_of(command, "a dry run of the training")["metric"])
