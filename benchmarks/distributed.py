"""Training speed over slow links: our data parallelism against tf.distribute, Horovod alone and one process.

    sudo python benchmarks/distributed.py --plan           # how long the default takes: 2 workers, all models
    sudo python benchmarks/distributed.py --log all.jsonl --out table.txt --picture ratios.png

Every process runs on a host of its own (a network namespace behind a link of a set rate, see `shaped_links.py`) and,
while there are enough, on a core of its own with one computing thread. Every subject trains the same model from the
same weights with the same Adam on the same rows; an update has the same global batch (the parameter server updates
after every worker's part of it). A run starts the processes of one subject, warms up on the unlimited link and then
measures each rate: two steps to settle, then `--steps` steps, or as many as fit into `--seconds`, at least three.
Repeats are interleaved. The log has one JSON line per run and rate; what it has already is not measured again, so the
benchmark can be stopped and started again with the same `--log`, and be run in parts:

    --models c --rates 100,500                             # one model, two rates
    --models c --classes 100000 --features 768 --subjects share,horovod,sharded --rates 1000
    --workers 4 --models probe,c                           # second table; with 2 cores: communication only
    --steps 30 --seconds 60 --repeats 5 --rates 50,100,200,500,1000,unshaped    # the full protocol, many hours

Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distributed_cluster import Cluster, RunFailed
from distributed_report import MICRO_BATCHES, MODELS, SUBJECTS, Record, Report, draw, predicted_time
from shaped_links import Links

# Levers by subject: which processes there are, and what distinguishes subjects that have the same ones.
LEVERS: dict[str, dict[str, Any]] = {
    "share": {"kind": "alone"},
    "one": {"kind": "alone"},
    "server": {"kind": "server"},
    "mirrored": {"kind": "mirrored", "pack_mb": 0},
    "mirrored-tuned": {"kind": "mirrored"},
    "horovod": {"kind": "horovod"},
    "ours": {"kind": "ours", "overlap": False},
    "overlap": {"kind": "ours", "overlap": True},
    "float16": {"kind": "ours", "overlap": True, "wire_dtype": "float16"},
    "int8": {"kind": "ours", "overlap": True, "wire_dtype": "int8"},
    "sharded": {"kind": "ours", "overlap": True, "wire_dtype": "float16", "sharded": True},
    "accumulated": {"kind": "accumulated", "overlap": True},
}
ONE_PROCESS = ("one", "share")
PROBED = ("mirrored", "horovod", "ours")
SPLIT_MODELS = ("b", "c")
BATCH = {"a": 32, "b": 32, "c": 64, "probe": 8}
TOKENS = 64
MIN_STEPS, SETTLE_STEPS = 3, 2
# For the plan only: seconds to start a subject, seconds of computing per step, MB of gradients.
START_S = 10
ROUGH_COMPUTE_S = {"a": 0.4, "b": 0.7, "c": 0.15, "probe": 0.02}
ROUGH_MB = {"a": 13, "b": 44, "probe": 10}
UNSHAPED, UNSHAPED_MBIT = "unshaped", 6000


def main() -> None:
    """Measures what the log lacks, then prints the tables of everything asked for."""
    options = _options()
    series = list(_series(options))
    if options.plan:
        missing = [run for run in series if run[3]]
        seconds = sum(_estimate(settings, subject, rates) for settings, subject, _, rates in missing)
        print(f"{len(missing)} starts, {sum(len(run[3]) for run in missing)} measurements, {seconds / 60:.0f} minutes")
        return
    # SIGTERM ends like Ctrl-C: processes and namespaces are removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for workers in options.workers:
        if any(rates for settings, _, _, rates in series if settings["workers"] == workers):
            with Links([*(f"worker{rank}" for rank in range(workers)), "server", "coordinator"]) as links:
                _measure_links(links, workers, options)
                for settings, subject, repeat, rates in series:
                    if settings["workers"] == workers and rates:
                        _run(links, settings, subject, repeat, rates, options.log)
    _print_report(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=_words, default="100,500,1000,unshaped", help="Mbit/s, or unshaped")
    parser.add_argument("--workers", type=_numbers, default="2", help="numbers of workers, such as 2,4")
    parser.add_argument("--models", type=_words, default="probe,c,a,b", help=", ".join(MODELS))
    parser.add_argument("--subjects", type=_words, default=",".join(LEVERS), help="default: all")
    parser.add_argument("--steps", type=int, default=30, help="most steps of a measurement")
    parser.add_argument("--seconds", type=float, default=8.0, help="about how long a measurement takes at most")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before the first measurement of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--classes", type=int, default=50_000, help="of model c")
    parser.add_argument("--features", type=int, default=128, help="width of model c")
    parser.add_argument("--bucket-mb", type=float, default=8.0, help="bucket of our reducer")
    parser.add_argument("--pack-mb", type=float, default=4.0, help="pack of the tuned mirrored strategy")
    parser.add_argument("--log", type=Path, default=Path("distributed.jsonl"))
    parser.add_argument("--picture", type=Path, help="PNG file for the ratios over the link rate")
    parser.add_argument("--out", type=Path, help="text file for the tables")
    parser.add_argument("--plan", action="store_true", help="print about how long it takes, and end")
    options = parser.parse_args()
    for name, known in (("models", MODELS), ("subjects", LEVERS)):
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"--{name}: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return options


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _settings(options: argparse.Namespace, model: str, workers: int) -> dict[str, Any]:
    """Returns what decides a result beside subject, repeat and rate."""
    return {
        "model": model,
        "workers": workers,
        "batch": BATCH[model],
        "tokens": TOKENS,
        "classes": options.classes,
        "features": options.features,
        "steps": options.steps,
        "seconds": options.seconds,
        "warm_up": options.warm_up,
        "bucket_mb": options.bucket_mb,
        "pack_mb": options.pack_mb,
        "shared_cores": workers > len(os.sched_getaffinity(0)),
        "horovod": {name: value for name, value in sorted(os.environ.items()) if name.startswith("HOROVOD_")},
    }


def _series(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], str, int, list[str | None]]]:
    """Yields settings, subject, repeat and the rates still to measure, interleaved."""
    done = {
        (json.dumps(record["settings"]), record["subject"], record["repeat"], record["rate"])
        for record in _read(options.log)
        if record["kind"] == "run" and "failed" not in record
    }
    for workers in options.workers:
        for repeat in range(options.repeats):
            for model in options.models:
                settings = _settings(options, model, workers)
                for subject in options.subjects:
                    if _makes_sense(subject, model):
                        rates = [None] if subject in ONE_PROCESS else options.rates
                        key = (json.dumps(settings), subject, repeat)
                        yield settings, subject, repeat, [rate for rate in rates if (*key, rate) not in done]


def _makes_sense(subject: str, model: str) -> bool:
    if model == "probe":
        return subject in PROBED
    return subject != "sharded" or model in SPLIT_MODELS


def _estimate(settings: dict[str, Any], subject: str, rates: Iterable[str | None]) -> float:
    """Returns about how many seconds a run takes, from sizes and the predictions of the report."""
    model, workers = settings["model"], settings["workers"]
    compute = ROUGH_COMPUTE_S[model]
    megabytes = ROUGH_MB.get(model, 4e-6 * settings["classes"] * settings["features"])
    total = START_S + settings["warm_up"] * compute
    for rate in rates:
        mbit = UNSHAPED_MBIT if rate in (None, UNSHAPED) else float(rate)
        ring = 2 * (workers - 1) / workers * 8 * megabytes / mbit / compute
        step = compute * sum(predicted_time(subject, ring, workers, 0.9 if subject == "sharded" else 0)) / 2
        step *= MICRO_BATCHES if subject == "accumulated" else 1
        total += step * (SETTLE_STEPS + _steps(settings, step))
    return total


def _steps(settings: dict[str, Any], step_seconds: float) -> int:
    fitting = int(settings["seconds"] / step_seconds)
    return min(settings["steps"], max(MIN_STEPS, fitting))


def _measure_links(links: Links, workers: int, options: argparse.Namespace) -> None:
    for rate in options.rates:
        links.shape(None if rate == UNSHAPED else float(rate))
        mbit = links.goodput("worker0", "worker1")
        _write(options.log, {"kind": "goodput", "workers": workers, "rate": rate, "mbit": mbit})
        _say(f"link {rate}: goodput {mbit:.1f} Mbit/s")


def _run(links: Links, settings: dict[str, Any], subject: str, repeat: int, rates: list[str | None], log: Path) -> None:
    """Starts a subject, measures the rates, and logs each; a subject that fails is logged as failed."""
    levers = {"overlap": False, "wire_dtype": "float32", "sharded": False}
    started = settings | levers | LEVERS[subject]
    if subject == "share":
        started["batch"] //= settings["workers"]
    common = {"kind": "run", "settings": settings, "subject": subject, "repeat": repeat}
    name = f"model {settings['model']}, {settings['workers']} workers, {subject}, repeat {repeat}"
    links.shape(None)
    begin = time.monotonic()
    try:
        with Cluster(links, started) as cluster:
            sizes = cluster.answers(cluster.trainers)[0]
            per_update = started["batch"] * (MICRO_BATCHES if subject == "accumulated" else 1)
            losses = _steps_of(cluster, settings["warm_up"], per_update)[1]
            _say(f"{name}: ready after {time.monotonic() - begin:.0f} s")
            for rate in rates:
                links.shape(None if rate in (None, UNSHAPED) else float(rate))
                settled, found = _steps_of(cluster, SETTLE_STEPS, per_update)
                losses += found
                count = _steps(settings, settled / SETTLE_STEPS)
                record = _measure(links, cluster, count, per_update, losses)
                record["updates"] = count * (settings["workers"] if subject == "server" else 1)
                _write(log, common | {"rate": rate, "sizes": sizes} | record)
                _say(f"{name}, rate {rate}: {1000 * record['seconds'] / count:.0f} ms per step, {count} steps")
    except RunFailed as error:
        _write(log, common | {"rate": None, "failed": str(error)})
        _say(f"{name} FAILED: {error}")


def _steps_of(cluster: Cluster, count: int, per_update: int) -> tuple[float, list[float]]:
    """Makes steps; returns seconds on rank 0 and the mean loss of each update over all ranks."""
    answers = cluster.ask(do="steps", count=count)
    losses = [sum(parts) / per_update for parts in zip(*(reply["losses"] for reply in answers), strict=True)]
    return answers[0]["seconds"], losses


def _measure(links: Links, cluster: Cluster, count: int, per_update: int, losses: list[float]) -> Record:
    """Makes `count` steps; returns time, traffic, processor time, memory, losses so far and weight hashes."""
    bytes_before, busy_before, begin = links.counters(), _busy_seconds(), time.monotonic()
    cpu_before = {program.name: program.cpu_seconds() for program in cluster.programs}
    seconds, found = _steps_of(cluster, count, per_update)
    cpu = {program.name: program.cpu_seconds() - cpu_before[program.name] for program in cluster.programs}
    busy, wall, bytes_after = _busy_seconds() - busy_before, time.monotonic() - begin, links.counters()
    losses += found
    return {
        "steps": count,
        "examples": count * per_update,
        "seconds": seconds,
        "sent": {host: bytes_after[host][0] - bytes_before[host][0] for host in bytes_after},
        "received": {host: bytes_after[host][1] - bytes_before[host][1] for host in bytes_after},
        "cpu": cpu,
        # Share of the machine that was busy with something else.
        "others": max(0.0, busy - sum(cpu.values())) / wall / os.cpu_count(),
        "peak_mb": {program.name: program.peak_mb() for program in cluster.programs},
        "losses": list(losses),
        "hashes": [reply["hash"] for reply in cluster.ask(do="hash")],
    }


def _busy_seconds() -> float:
    """Returns the processor time of all processes of the machine, without interrupts."""
    user, nice, system = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _print_report(options: argparse.Namespace) -> None:
    records = _read(options.log)
    reports = []
    for workers in options.workers:
        goodput = {r["rate"]: r["mbit"] for r in records if r["kind"] == "goodput" and r["workers"] == workers}
        for model in options.models:
            settings = _settings(options, model, workers)
            runs = [r for r in records if r["kind"] == "run" and r["settings"] == settings]
            succeeded = {(r["subject"], r["repeat"]) for r in runs if "failed" not in r}
            # A failure of an earlier start no longer counts once the run was made.
            runs = [r for r in runs if "failed" not in r or (r["subject"], r["repeat"]) not in succeeded]
            if runs:
                reports.append(Report(runs, goodput))
    text = "\n".join(
        [
            "Every ratio is examples/s over a baseline, with the prediction from R and N in brackets; ! marks bytes",
            "more than 10 % off the formula. Every update of the parameter server has one worker's part of the batch.",
            f"Subjects: {', '.join(SUBJECTS.values())}.",
            "",
            *(report.text() for report in reports),
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if options.picture and reports:
        draw([report for report in reports if report.model != "probe"] or reports, options.picture)


def _read(log: Path) -> list[Record]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def _write(log: Path, record: Record) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
