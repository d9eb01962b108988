"""Where the time of a step goes: input, computing, exchanging, waiting. Read from Horovod's timeline of the chief."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIMELINE = "timeline.json"
PICTURE = "timeline.png"
_MICRO = 1e-6
_MEMBER = re.compile(r"_\d+of\d+$")
# Parts of a step in the order in which they are drawn.
PARTS = ("input_s", "compute_s", "exchange_s", "wait_s")


@dataclass(frozen=True)
class Exchange:
    """One collective as the chief saw it, in seconds.

    Attributes:
        name: Name of the tensor.
        submitted: The chief had it ready.
        begun: All workers had it ready, and it began to travel.
        ended: It was there.
    """

    name: str
    submitted: float
    begun: float
    ended: float


def read_timeline(path: str | Path) -> list[Exchange]:
    """Returns the exchanges of a timeline file, also of one that was cut off, in order of submission.

    Exchanges outside of training steps (weights at the start, metrics) have names of Horovod's and are left out.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        events = json.loads(text)
    except json.JSONDecodeError:
        events = json.loads(text[: text.rindex("}") + 1] + "]")
    names = {event["pid"]: event["args"].get("name", "") for event in events if event.get("name") == "process_name"}
    found: list[Exchange] = []
    for pid, name in names.items():
        if name and not name.startswith("Horovod"):
            found += _exchanges(name, [event for event in events if event.get("pid") == pid and event["ph"] in "BE"])
    return sorted(found, key=lambda exchange: exchange.submitted)


def _exchanges(name: str, events: Iterable[Mapping[str, Any]]) -> Iterable[Exchange]:
    """Yields the exchanges of one tensor: a phase NEGOTIATE_..., then one of the operation with phases inside."""
    depth, submitted, begun, negotiates = 0, 0.0, None, False
    for event in events:
        at = event["ts"] * _MICRO
        if event["ph"] == "B":
            if depth == 0:
                negotiates = event["name"].startswith("NEGOTIATE")
                submitted, begun = (at, None) if negotiates else (submitted, at)
            depth += 1
        else:
            depth -= 1
            if depth == 0 and not negotiates and begun is not None:
                yield Exchange(name, submitted, begun, at)


def steps(exchanges: Sequence[Exchange]) -> list[list[Exchange]]:
    """Groups exchanges by training step: the k-th exchange of every tensor belongs to step k."""
    seen: dict[str, int] = {}
    found: list[list[Exchange]] = []
    for exchange in exchanges:
        k = seen[exchange.name] = seen.get(exchange.name, 0) + 1
        if len(found) < k:
            found.append([])
        found[k - 1].append(exchange)
    return found


def step_times(step: Sequence[Exchange]) -> dict[str, float]:
    """Returns the parts of one step that the exchanges tell.

    The last tensor is submitted when all is computed; from then on the step only exchanges and waits. `exchange_s` and
    `wait_s` are the two parts of that rest, `overlapped_s` is the time before it in which something travelled.
    """
    computed, ended = max(each.submitted for each in step), max(each.ended for each in step)
    travels = covered([(each.begun, each.ended) for each in step])
    rest = covered([(max(each.begun, computed), each.ended) for each in step if each.ended > computed])
    return {"exchange_s": rest, "wait_s": ended - computed - rest, "overlapped_s": travels - rest}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Returns the length of the union of spans."""
    total, reached = 0.0, -np.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def summary(exchanges: Sequence[Exchange], step_s: float, input_s: float) -> dict[str, float]:
    """Returns the median parts of a step in seconds; the first step, in which tracing ends, is left out.

    Args:
        exchanges: See `read_timeline`.
        step_s: Seconds of a step, input included.
        input_s: Seconds that a step waited for its batch.
    """
    times = [step_times(step) for step in steps(exchanges)[1:]]
    if not times:
        return {}
    parts = {name: float(np.median([each[name] for each in times])) for name in times[0]}
    parts["input_s"] = input_s
    parts["compute_s"] = max(0.0, step_s - input_s - parts["exchange_s"] - parts["wait_s"])
    return {"step_s": step_s, **parts}


def best_of_autotune(path: str | Path) -> dict[str, float] | None:
    """Returns the settings with the highest score in Horovod's autotune log; None when nothing was tried."""
    with open(path, encoding="utf-8", newline="") as log:
        rows = list(csv.DictReader(log, skipinitialspace=True))
    best = max(rows, key=lambda row: float(row["score"]), default=None)
    if best is None:
        return None
    tuned = {"cycle_time_ms": "cycle_time_ms", "fusion_mb": "tensor_fusion_threshold"}
    return {"tried": len(rows), **{name: float(best[column]) for name, column in tuned.items()}}


def timeline_picture(exchanges: Sequence[Exchange], parts: Mapping[str, float]) -> Figure:
    """Draws the parts of a step as one bar, and under it what travelled when in three steps from the middle."""
    from matplotlib.figure import Figure

    colours = ("#8a8a8a", "#2563a8", "#d9730d", "#f2c185")
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 4))
    left = 0.0
    for name, colour in zip(PARTS, colours, strict=True):
        label = f"{name.removesuffix('_s')} {1000 * parts[name]:.1f} ms"
        upper.barh(0, 1000 * parts[name], left=left, color=colour, label=label)
        left += 1000 * parts[name]
    upper.set(yticks=[], xlabel="milliseconds", title=f"A step on the first worker: {1000 * parts['step_s']:.1f} ms")
    upper.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.9), fontsize=8)
    grouped = steps(exchanges)
    middle = len(grouped) // 2
    # The tensors of a bucket travel together.
    shown = dict.fromkeys(
        (_MEMBER.sub("", each.name), each.submitted, each.begun, each.ended)
        for step in grouped[middle : middle + 3]
        for each in step
    )
    rows = {name: row for row, name in enumerate(dict.fromkeys(name for name, *_ in shown))}
    zero = min(submitted for _, submitted, _, _ in shown)
    for first, colour, label in ((1, colours[3], "ready here, waits"), (2, colours[2], "travels")):
        lower.barh(
            [rows[each[0]] for each in shown],
            [1000 * (each[first + 1] - each[first]) for each in shown],
            left=[1000 * (each[first] - zero) for each in shown],
            color=colour,
            label=label,
        )
    lower.set(xlabel="milliseconds", title="Exchanges of three steps")
    lower.set_yticks(list(rows.values()), list(rows), fontsize=8)
    lower.invert_yaxis()
    lower.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure
