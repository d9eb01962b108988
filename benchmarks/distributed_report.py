"""What `distributed.py` prints: predictions, validity, tables and the picture, all from the log."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from easytransfer.distributed.int8_wire import BYTES_PER_NUMBER

Record = dict[str, Any]

# Names in tables, in the order of the tables.
SUBJECTS = {
    "one": "one process",
    "server": "ParameterServerStrategy",
    "mirrored": "MultiWorkerMirrored",
    "mirrored-tuned": "MultiWorkerMirrored tuned",
    "horovod": "Horovod, plain",
    "ours": "ours float32, no overlap",
    "overlap": "ours + overlap",
    "float16": "ours + float16 wire",
    "sharded": "ours + sharded head",
    "int8": "ours + int8 wire",
    "accumulated": "ours + overlap, k = 4",
}
MODELS = {
    "a": "BERT encoder 4 x 256, text classification",
    "b": "BERT encoder 4 x 256, tied masked-word head",
    "c": "many classes on a small body",
    "probe": "10 MB of gradients, nothing to compute",
}
BASELINES = ("server", "mirrored")
COMPARED = (*BASELINES, "horovod")
# The float32 ring that losses are compared with: the first of these that was measured.
REFERENCES = ("horovod", "ours", "one")
ASYNCHRONOUS = "server"
ACCUMULATED, MICRO_BATCHES = "accumulated", 4
# Subjects in tables of their own: they train differently.
APART = {
    ACCUMULATED: f"Fewer updates: one per {MICRO_BATCHES} global batches",
    "int8": "Lossy: int8 with error feedback",
}
LOSS_TOLERANCE, BYTES_TOLERANCE, PROBE_TOLERANCE = 0.01, 0.10, 0.20
COMPARED_STEPS = 5
CURVE_POINTS = 10
# What the processes of a job tell each other per step beside tensors.
CONTROL_BYTES = 30_000
# Share of the machine that other processes may use before a table says so.
QUIET = 0.05


def ring_bytes(sizes: dict[str, float], workers: int) -> float:
    """Returns what a worker sends per step in the plain float32 ring; looked-up rows are gathered."""
    return 2 * (workers - 1) / workers * sizes["dense_bytes"] + (workers - 1) * sizes["row_bytes"]


def expected_bytes(subject: str, sizes: dict[str, float], workers: int) -> float:
    """Returns what a worker should send per update and step of the subject."""
    factor, others = 2 * (workers - 1) / workers, workers - 1
    rows = others * sizes["row_bytes"]
    match subject:
        case "one":
            return 0.0
        case "server":
            return sizes["dense_bytes"] + sizes["row_bytes"]
        case "float16":
            return factor * sizes["dense_bytes"] / 2 + rows / 2
        case "int8":
            return factor * sizes["dense_bytes"] / 4 * BYTES_PER_NUMBER + rows / 2
        case "sharded":
            return factor * (sizes["dense_bytes"] - sizes["split_bytes"]) / 2 + rows / 2 + sizes["shared_bytes"]
        case "accumulated":
            # Rows that several micro-batches looked up are counted twice here, and travel once.
            return factor * sizes["dense_bytes"] + min(MICRO_BATCHES * rows, factor * sizes["table_bytes"])
    return factor * sizes["dense_bytes"] + rows


def predicted_time(subject: str, r: float, workers: int, share: float) -> tuple[float, float]:
    """Returns the shortest and the longest time of a global batch, in units of one worker's compute time.

    Args:
        subject: Name.
        r: Communication of the plain float32 ring / compute time of one worker.
        workers: Number of workers.
        share: Share of the gradient bytes that the sharded head keeps at home.
    """
    single = {
        "one": float(workers),
        "overlap": max(1.0, 1 / 3 + r),
        "float16": max(1.0, 1 / 3 + r / 2),
        "sharded": max(1.0, 1 / 3 + (1 - share) * r / 2),
        "int8": max(1.0, 1 / 3 + r / 4),
        "accumulated": 1 + r / MICRO_BATCHES,
    }
    if subject == "server":
        least = workers**2 / (2 * (workers - 1))
        return 1 + r * least, 1 + 2 * r * least
    return (single.get(subject, 1 + r),) * 2


class Report:
    """Tables of one model and number of workers.

    Args:
        records: Runs of this model, these workers and one set of settings.
        goodput: Measured Mbit/s by rate.
    """

    def __init__(self, records: list[Record], goodput: dict[str, float]) -> None:
        self.goodput, self.settings = goodput, records[0]["settings"]
        self.model, self.workers = self.settings["model"], self.settings["workers"]
        self._failed = [record for record in records if "failed" in record]
        self._runs = [record for record in records if "failed" not in record]
        self.sizes = next((r["sizes"] for r in self._runs if r["subject"] != "share"), None)
        self._reference = self._find_reference()
        times = [record["seconds"] / record["steps"] for record in self._of("share", None)]
        # Compute time of one worker: one process with one worker's rows.
        self.compute = statistics.median(times) if times else None

    def _of(self, subject: str, rate: str | None) -> list[Record]:
        """Valid runs of a subject; those of one process do not depend on the rate."""
        free = subject in ("one", "share")
        chosen = [r for r in self._runs if r["subject"] == subject and (free or r["rate"] == rate)]
        return [record for record in chosen if not self.fault(record)]

    def _find_reference(self) -> Record | None:
        for name in REFERENCES:
            found = [r for r in self._runs if r["subject"] == name and not _weights_differ(r)]
            if found:
                return max(found, key=lambda record: len(record["losses"]))
        return None

    def fault(self, record: Record) -> str:
        """Returns why a run is void, or nothing."""
        if _weights_differ(record):
            return "weights differ between ranks"
        if record["subject"] in (ASYNCHRONOUS, *APART, "share") or self._reference is None:
            return ""
        off = self.loss_difference(record)
        # A loss that is not a number must not pass.
        return "" if off <= LOSS_TOLERANCE else f"loss {100 * off:.1f} % off the float32 ring"

    def loss_difference(self, record: Record) -> float:
        """Returns how far the loss is from the reference's after the same examples, relative to it."""
        losses, expected = record["losses"], self._reference["losses"]
        end = min(len(losses), len(expected))
        begin = max(0, end - COMPARED_STEPS)
        wanted = statistics.fmean(expected[begin:end])
        return abs(statistics.fmean(losses[begin:end]) / wanted - 1)

    def r(self, rate: str) -> float | None:
        """Returns the communication time of the plain ring / the compute time, at the measured goodput."""
        if self.compute is None or self.sizes is None or rate not in self.goodput:
            return None
        return ring_bytes(self.sizes, self.workers) * 8e-6 / self.goodput[rate] / self.compute

    @property
    def share(self) -> float:
        """Share of the gradient bytes that a sharded head keeps at home."""
        return self.sizes["split_bytes"] / self.sizes["dense_bytes"]

    def speed(self, subject: str, rate: str) -> list[float]:
        """Returns examples/s of the valid repeats."""
        return [record["examples"] / record["seconds"] for record in self._of(subject, rate)]

    def ratio(self, subject: str, baseline: str, rate: str) -> float | None:
        """Returns examples/s of a subject over those of a baseline, medians of the repeats."""
        own, other = self.speed(subject, rate), self.speed(baseline, rate)
        return statistics.median(own) / statistics.median(other) if own and other else None

    def predicted_ratio(self, subject: str, baseline: str, rate: str) -> str:
        """Returns the ratio that section 8 of the specification predicts, as text."""
        r = self.r(rate)
        if subject == baseline:
            return "1.00"
        if r is None:
            return "-"
        least, most = predicted_time(baseline, r, self.workers, self.share)
        own = predicted_time(subject, r, self.workers, self.share)
        low, high = least / own[1], most / own[0]
        return f"{low:.2f}" if high - low < 0.005 else f"{low:.2f}-{high:.2f}"

    def heading(self) -> list[str]:
        """Returns the lines above the tables of a model."""
        lines = [f"## Model {self.model}: {MODELS[self.model]}; N = {self.workers} workers"]
        if self.settings["shared_cores"]:
            lines.append("Workers share cores: communication only, step times are not those of separate machines.")
        if self.sizes is None:
            return [*lines, "No run ended."]
        s = self.sizes
        compute = "not measured" if self.compute is None else f"{1000 * self.compute:.1f} ms"
        lines.append(
            f"{s['parameters']:,} parameters; float32 gradients: {s['dense_bytes'] / 1e6:.1f} MB dense, "
            f"{s['row_bytes'] / 1e6:.2f} MB looked-up rows per worker; share f of the sharded part {self.share:.3f}; "
            f"global batch {self.settings['batch']}; C = {compute}"
        )
        return lines

    def table(self, rate: str, apart: str = "") -> list[str]:
        """Returns the table of one rate; of one subject with a table of its own, or of all others."""
        r = self.r(rate)
        limit = "no limit" if rate == "unshaped" else f"{rate} Mbit/s"
        measured = self.goodput.get(rate)
        goodput = "not measured" if measured is None else f"{measured:.0f} Mbit/s"
        known = "unknown" if r is None else f"{r:.2f}"
        title = f"Link {limit}, goodput {goodput}, R = {known}, N = {self.workers}"
        names = [apart] if apart else [name for name in SUBJECTS if name not in APART]
        rows = [self._row(name, rate) for name in names if self._of(name, rate)]
        header = ["subject", "step ms (range)", "examples/s", "updates/s"]
        header += [f"/ {name} (predicted)" for name in COMPARED]
        header += ["MB sent/step (formula)", "CPU s/step", "peak MB"]
        return [title, "", *_markdown(header, rows), "", *self._notes(names, rate)] if rows else []

    def _row(self, name: str, rate: str) -> list[str]:
        runs = self._of(name, rate)
        times = sorted(1000 * run["seconds"] / run["steps"] for run in runs)
        speed = statistics.median(self.speed(name, rate))
        updates = statistics.median(run["updates"] / run["seconds"] for run in runs)
        # The mean over the workers: those of a parameter server do not share its updates evenly.
        hosts = ["worker0"] if name == "one" else [f"worker{rank}" for rank in range(self.workers)]
        sent = statistics.median(statistics.fmean(run["sent"][h] for h in hosts) / run["steps"] for run in runs)
        formula = expected_bytes(name, self.sizes, self.workers)
        mark = " !" if abs(sent - formula) > BYTES_TOLERANCE * formula + CONTROL_BYTES else ""
        ratios = []
        for baseline in COMPARED:
            found = self.ratio(name, baseline, rate)
            ratios.append("-" if found is None else f"{found:.2f} ({self.predicted_ratio(name, baseline, rate)})")
        cpu = {host: statistics.median(run["cpu"][host] / run["steps"] for run in runs) for host in runs[0]["cpu"]}
        peak = max(memory for run in runs for host, memory in run["peak_mb"].items() if host.startswith("worker"))
        return [
            SUBJECTS[name],
            f"{statistics.median(times):.0f} ({times[0]:.0f}-{times[-1]:.0f})",
            f"{speed:.1f}",
            f"{updates:.2f}",
            *ratios,
            f"{sent / 1e6:.2f} ({formula / 1e6:.2f}){mark}",
            ", ".join(f"{host} {seconds:.2f}" for host, seconds in cpu.items() if seconds >= 0.005),
            f"{peak:.0f}",
        ]

    def _notes(self, names: list[str], rate: str) -> Iterable[str]:
        """Void and failed runs, and losses of the subjects they are not compared for."""
        for record in self._runs:
            if record["subject"] in names and record["rate"] == rate and self.fault(record):
                yield f"VOID: {record['subject']}, repeat {record['repeat']}: {self.fault(record)}"
        for record in self._failed:
            if record["subject"] in names:
                yield f"FAILED: {record['subject']}, repeat {record['repeat']}: {record['failed'][-300:].strip()}"
        busy = max((run["others"] for name in (*names, "share") for run in self._of(name, rate)), default=0.0)
        if busy > QUIET:
            yield f"BUSY: other processes used up to {100 * busy:.0f} % of the machine; do not trust these times."
        for name in names:
            runs = self._of(name, rate)
            if runs and self._reference is not None and name in ("server", "float16", "sharded", "int8"):
                off = max(map(self.loss_difference, runs))
                yield f"Loss of {name}: at most {100 * off:.2f} % off the float32 ring after the same examples."
        if self.model == "probe":
            yield self._probe(rate)

    def _probe(self, rate: str) -> str:
        found = self.ratio("ours", "mirrored", rate)
        if found is None:
            return "Probe: mirrored or ours was not measured."
        verdict = "within" if abs(found - 1) <= PROBE_TOLERANCE else "NOT within"
        return f"Probe: ours without overlap / mirrored = {found:.2f}, {verdict} {100 * PROBE_TOLERANCE:.0f} %."

    def _curve(self, name: str) -> list[str]:
        """Returns the loss of one run beside the float32 ring's after the same examples."""
        run = max((r for rate in self.rates() for r in self._of(name, rate)), key=lambda r: len(r["losses"]))
        batches = MICRO_BATCHES if name == ACCUMULATED else 1
        ring = [] if self._reference is None else self._reference["losses"]
        places = [i for i in range(len(run["losses"])) if (i + 1) * batches <= len(ring)]
        shown = places[:: max(1, len(places) // CURVE_POINTS)]
        rows = [
            [str((i + 1) * batches), f"{run['losses'][i]:.4f}", f"{ring[(i + 1) * batches - 1]:.4f}"] for i in shown
        ]
        return _markdown(["global batches", f"loss of {SUBJECTS[name]}", "loss of the float32 ring"], rows)

    def rates(self) -> list[str]:
        """Returns the rates measured, slowest first."""
        found = {record["rate"] for record in self._runs if record["rate"] is not None}
        return sorted(found, key=lambda rate: float("inf") if rate == "unshaped" else float(rate))

    def text(self) -> str:
        """Returns everything about this model."""
        lines = self.heading()
        for rate in self.rates():
            lines += ["", *self.table(rate)]
        for name, title in APART.items():
            rates = [rate for rate in self.rates() if self._of(name, rate)]
            lines += ["", f"### {title}"] if rates else []
            for rate in rates:
                lines += ["", *self.table(rate, apart=name)]
            lines += ["", *self._curve(name)] if rates else []
        return "\n".join(lines) + "\n"


def draw(reports: list[Report], path: Path) -> None:
    """Draws the ratio to each baseline over the measured link rate, a column per model and number of workers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(reports), 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(BASELINES), len(reports), squeeze=False)
    for column, report in enumerate(reports):
        for row, baseline in enumerate(BASELINES):
            panel = axes[row][column]
            for name, label in SUBJECTS.items():
                points = [(report.goodput.get(rate), report.ratio(name, baseline, rate)) for rate in report.rates()]
                points = [(x, y) for x, y in points if x is not None and y is not None]
                if points and name not in ("one", baseline, *APART):
                    panel.plot(*zip(*points, strict=True), marker="o", label=label)
            panel.axhline(1, color="black", linewidth=0.8)
            panel.set(
                xscale="log", xlabel="goodput of the link, Mbit/s", ylabel=f"examples/s over {SUBJECTS[baseline]}"
            )
            panel.set_title(f"model {report.model}, {report.workers} workers")
            if panel.lines[:-1]:
                panel.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _weights_differ(record: Record) -> bool:
    return len(set(record["hashes"])) > 1


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
