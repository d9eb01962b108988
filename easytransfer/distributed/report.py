"""The section `distributed` of a run's report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.config.job import DistributionConfig
from easytransfer.distributed.strategy import RESTARTS
from easytransfer.distributed.timeline import (
    PICTURE,
    TIMELINE,
    best_of_autotune,
    read_timeline,
    summary,
    timeline_picture,
)
from easytransfer.distributed.workers import Workers
from easytransfer.run.atomic import atomic_path
from easytransfer.run.history import read_history
from easytransfer.run.log import warn


def report_workers(folder: Path, workers: Workers, distribution: DistributionConfig) -> dict[str, Any]:
    """Tells how the job was shared and where the time of its steps went.

    Moves Horovod's timeline into the run folder and draws it.

    Args:
        folder: Run folder with `metrics.jsonl`.
        workers: The workers of the job, after training.
        distribution: What was asked for.

    Returns:
        `workers`, `replicas`, `wire_dtype`, `bytes_per_step` (dense gradients that each worker sent), `restarts`,
        `step_s` and `input_s`; with a timeline `compute_s`, `exchange_s`, `wait_s`, `overlapped_s` (see
        `timeline.step_times`); with autotune the best settings; and `pictures`, names of files in the folder.
    """
    found: dict[str, Any] = {
        "workers": workers.size,
        "replicas": workers.replicas,
        "wire_dtype": distribution.wire_dtype,
        "bytes_per_step": workers.bytes_per_step,
        "restarts": int(os.environ.get(RESTARTS, 0)),
    }
    # The first record has the step that is traced in it.
    records = [record for record in read_history(folder) if record["event"] == "step"]
    for name in ("step_s", "input_s"):
        found[name] = float(np.median([record[name] for record in records[1:] or records]))
    pictures = []
    if distribution.timeline:
        written, target = Path(os.environ["HOROVOD_TIMELINE"]), folder / TIMELINE
        with atomic_path(target) as temporary:
            shutil.copyfile(written, temporary)
        exchanges = read_timeline(target)
        parts = summary(exchanges, found["step_s"], found["input_s"])
        if parts:
            found |= parts
            pictures = _draw(folder, exchanges, parts)
    if distribution.autotune:
        best = best_of_autotune(os.environ["HOROVOD_AUTOTUNE_LOG"])
        if best is None:
            warn("training was too short for autotune to try anything")
        else:
            found["autotune"] = best
    return {**found, "pictures": pictures}


def _draw(folder: Path, exchanges: list[Any], parts: dict[str, float]) -> list[str]:
    try:
        figure = timeline_picture(exchanges, parts)
    except ImportError:  # without matplotlib, as `draw_pictures` has said
        return []
    with atomic_path(folder / PICTURE) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return [PICTURE]
