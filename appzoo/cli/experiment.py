"""The verb `experiment`: reads and checks an experiment, lets `appzoo.experiment` run it, and shows what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from appzoo.cli.sections import Section, terminal_text, write_sections
from appzoo.cli.text import EXPERIMENT_HELP, VERBS
from appzoo.cli.tune import checked_metric, read_trainings
from appzoo.experiment.cost import CALLS, SIZES
from appzoo.experiment.domains import DOMAINS_PICTURE, domain_points, domains_picture
from appzoo.experiment.plan import PlannedArm, planned_arms
from appzoo.experiment.run import ArmResult, Processes, run_experiment
from appzoo.experiment.summary import (
    COST_PICTURE,
    as_json,
    cost_picture,
    differences,
    mean_and_spread,
    metric_names,
    metric_of,
)
from easytransfer.config.flags import split_flags
from easytransfer.config.paths import user_path
from easytransfer.data.files import table_records
from easytransfer.errors import ConfigError, EasyTransferError
from easytransfer.run import log
from easytransfer.run.atomic import plain, write_json
from easytransfer.run.commands import command_line
from easytransfer.run.pictures import draw_each
from easytransfer.run.report import say_where

RESULT_FILE, PAGE_FILE = "experiment.json", "experiment.html"
_SEEDS = 3
_FLAGS = ("seeds", "arms", "outputDir")


def experiment(arguments: Sequence[str], processes: Processes = Processes()) -> int:  # noqa: B008 - frozen
    """Runs one command line of `experiment` and returns the exit code.

    Args:
        arguments: What stands behind the verb.
        processes: Commands that are started.

    Raises:
        ConfigError: A flag, arm or setting is wrong, or the folder holds something else.
        Interrupted: A signal stopped the experiment; the same command goes on.
        EasyTransferError: A training failed.
    """
    if {"-h", "--help"} & set(arguments):
        log.print_result(EXPERIMENT_HELP.format(text=VERBS["experiment"], seeds=_SEEDS))
        return 0
    given, rest = split_own(arguments)
    if "outputDir" not in given:
        raise ConfigError("experiment needs --outputDir", fix="see easy_transfer_app experiment --help")
    folder = user_path(given["outputDir"])
    job = read_trainings([*rest, f"--checkpointDir={folder}"], "experiment")
    arms = planned_arms(job.config, given["arms"].split(",") if "arms" in given else ())
    runtime = job.config.runtime
    seeds = range(runtime.seed, runtime.seed + seeds_of(given))
    _dry_run(arms, folder if not (runtime.overwrite or runtime.dry_run) else None, seeds, processes)
    with log.results_only_stdout() as stdout:
        if runtime.dry_run:
            shown = {arm.name: arm.what for arm in arms}
            result = {"mode": "experiment", "dry_run": True, "arms": shown, "seeds": list(seeds)}
        else:
            inputs, options = table_records(job.config), {"resume": runtime.resume, "overwrite": runtime.overwrite}
            found = run_experiment(folder, arms, seeds, inputs, **options, processes=processes)
            result = write_result(folder, found, domain_points(folder, job.config, found, processes))
        log.print_result(result, stdout)
    return 0


def split_own(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the flags of the experiment, and the arguments of its trainings.

    Raises:
        ConfigError: A flag is given twice, or it is the folder of one training.
    """
    found: dict[str, str] = {}
    others: list[str] = []
    for flag in split_flags(arguments):
        if flag.name in ("checkpointDir", "checkpoint_dir"):
            raise ConfigError(
                "experiment has no folder of one training", received=f"--{flag.name}", fix="--outputDir=DIR"
            )
        if flag.name not in _FLAGS:
            others += [f"--{flag.name}" if flag.value is None else f"--{flag.name}={flag.value}"]
        elif flag.name in found:
            raise ConfigError(f"--{flag.name} is given twice")
        else:
            found[flag.name] = flag.text()
    return found, others


def seeds_of(given: dict[str, str]) -> int:
    """Returns the number of seeds.

    Raises:
        ConfigError: It is no whole number from 1 on.
    """
    text = given.get("seeds", str(_SEEDS))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError("wrong value for --seeds", received=text, accepted="a whole number from 1 on")
    return int(text)


def _dry_run(arms: Sequence[PlannedArm], folder: Path | None, seeds: Sequence[int], processes: Processes) -> None:
    """Checks with dry runs the arms none of whose runs has begun, so that what is wrong is told before the first one.

    Args:
        arms: All arms.
        folder: Where runs may have begun; None for nowhere.
        seeds: Of the runs.
        processes: Commands that are started.
    """
    for arm in arms:
        begun = folder is not None and any((folder / f"{arm.name}-{seed}").is_dir() for seed in seeds)
        if arm.config is None or begun:
            continue
        try:
            checked_metric(arm.config, processes.program)
        except EasyTransferError as error:
            raise type(error)(f"arm {arm.name}: {error}") from error


def write_result(folder: Path, results: Sequence[ArmResult], domains: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `experiment.json`, pictures and page, says the tables, and returns what the verb prints.

    Args:
        folder: Of the experiment.
        results: What came out.
        domains: Points of the rows of domains, see `domain_points`.
    """
    found = plain(as_json(results))
    write_json(folder / RESULT_FILE, found)
    drawn = draw_each(
        folder,
        [(COST_PICTURE, lambda: cost_picture(results)), (DOMAINS_PICTURE, lambda: domains_picture(domains))],
    )
    shown = list(sections(results))
    for line in terminal_text(shown).splitlines():
        log.say(line)
    page = folder / PAGE_FILE
    write_sections(page, f"Experiment {folder.resolve().name}", shown, {name: folder / name for name in drawn})
    say_where({"result": folder / RESULT_FILE, "report of the experiment": page}, _commands(results))
    return {"mode": "experiment", "experiment": str(folder), **found, "report": str(page)}


def _commands(results: Sequence[ArmResult]) -> dict[str, str]:
    """Returns the command that compares the arms on the same rows, for the first seed."""
    runs = [next(iter(each.runs.values())) for each in results if each.runs]
    return {"compare on the same rows": command_line("compare", *map(str, runs))} if len(runs) > 1 else {}


def sections(results: Sequence[ArmResult]) -> Iterator[Section]:
    """Yields what there is to show."""
    main, *others = metric_names(results)
    times = tuple(f"#ms of {size}" for size in SIZES)
    heading = ("arm", "#parameters", "#MB", *times, f"#{main}", "#seeds", "what it is")
    rows = [
        (each.name, *_cost_cells(each), shown_metric(each, main), str(len(each.runs) or ""), each.what)
        for each in results
    ]
    yield Section("Arms", heading, rows, _cost_note(results))
    if others:
        rows = [(name, *(shown_metric(each, name) for each in results)) for name in others]
        yield Section("Other metrics", ("metric", *(f"#{each.name}" for each in results)), rows)
    if tested := differences(results):
        rows = [
            (name, f"{each.difference:+.4f}", f"{each.low:+.4f} to {each.high:+.4f}", f"{each.p:.3g}")
            for name, each in tested.items()
        ]
        first = next(each.name for each in results if each.runs)
        note = "Student's t of the pairs of runs of one seed, two-sided."
        note += " Each p is of one test: of many tests some are small by chance." if len(rows) > 1 else ""
        heading = ("arm", "#difference", "#95% interval", "#p")
        yield Section(f"{metric_of(results)} against {first}, over seeds", heading, rows, note)
    runs = [
        (each.name, str(seed), _number(each.metrics[seed].get(main)), str(run))
        for each in results
        for seed, run in each.runs.items()
    ]
    yield Section("Runs", ("arm", "#seed", f"#{main}", "run folder"), runs)


def _cost_cells(result: ArmResult) -> tuple[str, ...]:
    cost = result.cost
    if cost is None:
        return ("",) * (2 + len(SIZES))
    return f"{cost['parameters']:,}", f"{cost['bytes'] / 1e6:.1f}", *(f"{cost[f'ms_{size}']:.2f}" for size in SIZES)


def _cost_note(results: Sequence[ArmResult]) -> str:
    parts = ["Of metrics the mean and the standard deviation over seeds."]
    costs = [each.cost for each in results if each.cost is not None]
    if costs:
        machines = {f"{cost['cpus']} processors, {', '.join(cost['devices'])}" for cost in costs}
        parts.append(
            f"Size and time are of the export of one seed: the median of {CALLS} calls with {SIZES[0]} and {SIZES[1]} "
            f"rows of full length ({'; '.join(sorted(machines))})."
        )
    return " ".join(parts)


def shown_metric(result: ArmResult, metric: str) -> str:
    """Returns mean and spread of a metric, such as `0.8123 ± 0.0100`."""
    pair = mean_and_spread(result, metric)
    if pair is None:
        return "undefined"
    mean, spread = pair
    return _number(mean) + ("" if spread is None else f" ± {spread:.4f}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
