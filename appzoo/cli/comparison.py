"""The verb `compare`: what differs between runs, how good each is, and whether the difference can be chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from appzoo.cli.sections import Section, terminal_text, write_sections
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home, user_path
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.metrics.paired import Difference, bootstrap, differences, interval, resamples_for
from easytransfer.metrics.row_results import RowResults, renamed
from easytransfer.run.folder import REPORT_FILE, ROWS_FILE, RUN_FILE, RunFolder, input_contents
from easytransfer.run.intervals import SHARES_OF_ROWS, wilson_interval

PAGE_FILE = "comparison.html"
# Settings that say where and how a training ran and was told of, not what it was.
_NOT_OF_THE_TRAINING = (
    *("checkpoint_dir", "checkpoint_path", "data.table_memory_mb", "data.cache_dir", "runtime.resume"),
    *("runtime.overwrite", "runtime.log_format", "runtime.dry_run", "runtime.offline", "runtime.model_zoo_base_path"),
    *("train.log_step_count_steps", "train.keep_checkpoint_max", "schema_version"),
)
_FIX = "train them with the same --evalTable, or add --unpaired to see settings and metrics alone"


@dataclass
class Run:
    """A finished training.

    Attributes:
        name: What the user calls it.
        config: Its settings.
        report: Its `report.json`.
        tables: Hashes of the files that its evaluation rows are from.
        rows: Results of these rows; None where it has none.
    """

    name: str
    config: dict[str, Any]
    report: dict[str, Any]
    tables: list[str]
    rows: RowResults | None


@dataclass
class Comparison:
    """What was found.

    Attributes:
        runs: The runs.
        settings: Settings that differ: their values, one for each run.
        metrics: Metrics of each run, with the 95% interval where rows are known.
        tests: Differences of each run but the first from the first.
    """

    runs: list[Run]
    settings: dict[str, list[Any]]
    metrics: list[dict[str, tuple[float | None, float | None, float | None]]]
    tests: dict[str, list[Difference]]


def compare(arguments: Sequence[str]) -> str | dict[str, Any]:
    """Compares finished trainings, the first with each of the others.

    Raises:
        ConfigError: There are fewer than two runs.
        DataError: They were not measured on the same rows.
        ModelError: A folder is no finished run.
    """
    options = _parser().read(arguments)
    names = options["runs"]
    if len(names) < 2:
        raise ConfigError("compare needs two runs at least", received=" ".join(names), fix="name their folders")
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise ConfigError("a run is named twice", received=twice)
    runs = [_read(name) for name in names]
    found = compared(runs, paired=not options["unpaired"], seed=options["seed"])
    if options["outputDir"]:
        title = f"Comparison: {', '.join(run.name for run in runs)}"
        write_sections(user_path(options["outputDir"]) / PAGE_FILE, title, sections(found))
    return _as_json(found) if options["json"] else terminal_text(sections(found))


def _parser() -> Parser:
    parser = Parser(
        prog="easy_transfer_app compare",
        description="Settings that differ between runs, their metrics with 95% intervals, and tests on the same rows: "
        "McNemar's exact test for whole answers, the paired bootstrap for all other metrics.",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", type=expand_home, help="run folders; the first with each other"
    )
    parser.add_argument("--unpaired", action="store_true", help="settings and metrics alone, also of different rows")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap; default 0")
    parser.add_argument("--outputDir", metavar="DIR", help=f"also write a page, {PAGE_FILE}, into this folder")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    return parser


def _read(name: str) -> Run:
    folder = RunFolder(name)
    config, report = folder.config, folder.read_json(REPORT_FILE, default=None)
    if report is None:
        raise ModelError(f"{name} is no finished run: it has no {REPORT_FILE}", fix="train it to its end")
    files = input_contents(folder.read_json(RUN_FILE, default={}).get("inputs", ()))
    # Without an evaluation table its rows are some of the training table.
    tables = files.get("evaluation") or files.get("training") or {}
    place = folder.path / ROWS_FILE
    rows = RowResults.load(place) if place.is_file() else None
    return Run(name, config, report, sorted(tables.values()), rows)


def compared(runs: Sequence[Run], *, paired: bool, seed: int = 0) -> Comparison:
    """Compares runs.

    Args:
        runs: Two at least.
        paired: Whether they are tested, which takes the same rows in all of them.
        seed: Of the bootstrap.

    Raises:
        DataError: They do not have the same rows.
    """
    draws: list[dict[str, np.ndarray]] = [{} for _ in runs]
    tests: dict[str, list[Difference]] = {}
    if paired:
        results = _same_rows(runs)
        draws = bootstrap(results, seed)
        tests = {
            run.name: differences(results[0], result, draws[0], drawn)
            for run, result, drawn in zip(runs[1:], results[1:], draws[1:], strict=True)
        }
    else:
        draws = [bootstrap([run.rows], seed)[0] if run.rows is not None else {} for run in runs]
    metrics = [_with_intervals(run, drawn) for run, drawn in zip(runs, draws, strict=True)]
    return Comparison(list(runs), _settings(runs), metrics, tests)


def _same_rows(runs: Sequence[Run]) -> list[RowResults]:
    """Returns the results of all runs, whose rows are the same."""
    first = runs[0]
    for run in runs:
        if run.rows is None:
            what = f"{run.name} has no {ROWS_FILE}: it is of an earlier version, or its rows have no label and answer"
            raise DataError(what, fix="add --unpaired to see settings and metrics alone")
    for run in runs[1:]:
        if difference := _other_rows(first, run):
            raise DataError(f"{first.name} and {run.name} were not measured on the same rows: {difference}", fix=_FIX)
    return [run.rows for run in runs if run.rows is not None]


def _other_rows(first: Run, second: Run) -> str | None:
    """Returns what is different about the rows of two runs, None where they are the same."""
    one, other = first.rows, second.rows
    if one is None or other is None:
        return "one has none"
    if one.kind != other.kind:
        return f"one is a {one.kind.replace('_', ' ')}, the other a {other.kind.replace('_', ' ')}"
    if not first.tables or first.tables != second.tables:
        return "their evaluation tables are different files"
    if not np.array_equal(one.arrays["row"], other.arrays["row"]):
        shared = len(np.intersect1d(one.arrays["row"], other.arrays["row"]))
        return f"{len(one):,} rows and {len(other):,} rows of the table, {shared:,} of them in both"
    labels = renamed(other, one.labels)
    if labels is None or not np.array_equal(labels, one.arrays["true"]):
        return "their labels are different, as are those of two columns or of two lists of classes"
    return None


def _with_intervals(
    run: Run, drawn: Mapping[str, np.ndarray]
) -> dict[str, tuple[float | None, float | None, float | None]]:
    found = {}
    for name, value in run.report.get("metrics", {}).items():
        low, high = None, None
        if name in SHARES_OF_ROWS and run.rows is not None and value is not None:
            low, high = wilson_interval(value, len(run.rows))
        elif name in drawn:
            low, high = interval(drawn[name])
        found[name] = (value, low, high)
    return found


def _settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    flat = [dict(_flat(run.config)) for run in runs]
    names = sorted(set().union(*flat))
    values = {name: [each.get(name) for each in flat] for name in names if name not in _NOT_OF_THE_TRAINING}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def sections(found: Comparison) -> Iterator[Section]:
    """Yields what there is to show."""
    names = [run.name for run in found.runs]
    settings = [(name, *map(_value, values)) for name, values in found.settings.items()]
    if settings:
        yield Section("Settings that differ", ("setting", *names), settings)
    shown = list(dict.fromkeys(name for metrics in found.metrics for name in metrics))
    rows = [(name, *(_interval(*metrics.get(name, (None,) * 3)) for metrics in found.metrics)) for name in shown]
    note = "In brackets 95% intervals: Wilson's of shares of right rows, else of the bootstrap."
    yield Section("Metrics", ("metric", *(f"#{name}" for name in names)), rows, note)
    for name, tests in found.tests.items():
        tested = [
            (
                each.metric,
                f"{each.difference:+.4f}",
                f"{each.low:+.4f} to {each.high:+.4f}",
                f"{each.p:.3g}",
                each.test,
            )
            for each in tests
        ]
        heading = ("metric", "#difference", "#95% interval", "#p", "test")
        yield Section(f"{name} against {names[0]}, on the same rows", heading, tested, _tests_note(found))


def _tests_note(found: Comparison) -> str:
    rows = found.runs[0].rows
    count = 0 if rows is None else len(rows)
    several = " Each p is of one test: of many tests some are small by chance." if len(found.runs) > 2 else ""
    return f"{count:,} rows, {resamples_for(count):,} draws.{several}"


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None else "")


def _as_json(found: Comparison) -> dict[str, Any]:
    return {
        "runs": [run.name for run in found.runs],
        "settings": found.settings,
        "metrics": [
            {name: {"value": value, "low": low, "high": high} for name, (value, low, high) in metrics.items()}
            for metrics in found.metrics
        ],
        "tests": {name: [vars(each) for each in tests] for name, tests in found.tests.items()},
    }
