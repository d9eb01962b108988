"""Kills a random worker of an elastic training at a random moment, many times, and compares the final metrics.

    python benchmarks/kill_workers.py [--trials 20] [--workers 2] [--config FILE] [--set KEY=VALUE ...]

Every trial has a seed of its own and two whole trainings by `easy_transfer_app train`: one that nobody disturbs, and
one in which a worker, drawn like the moment, is killed with SIGKILL between the first step and the end. Printed: the
metrics of both; one JSON line at the end. Exits with 1 when a training did not complete or a kill hit none.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sides import mean_and_spread, print_table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "appzoo" / "text_classify" / "configs" / "smoke_cnn.yaml"


def start(run_dir: Path, seed: int, options: argparse.Namespace) -> subprocess.Popen[str]:
    """Starts one training."""
    settings = [
        f"checkpoint_dir={run_dir}",
        f"runtime.seed={seed}",
        "distribution.min_workers=1",
        f"train.save_checkpoint_steps={options.save_steps}",
        *options.set,
    ]
    words = [
        *(sys.executable, "-c", "from appzoo.cli.main import main; raise SystemExit(main())", "train"),
        *("--config", str(options.config), "--workerCount", str(options.workers)),
        *(word for setting in settings for word in ("--set", setting)),
    ]
    log = (run_dir.parent / f"{run_dir.name}.log").open("w")
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)


def metrics(process: subprocess.Popen[str]) -> dict[str, float] | None:
    """Waits for a training; returns its metrics, None when it failed."""
    output, _ = process.communicate()
    return json.loads(output.strip().splitlines()[-1])["metrics"] if process.returncode == 0 else None


def steps_done(run_dir: Path) -> int:
    """The last step that the chief reported."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return max((record.get("step", 0) for record in map(json.loads, lines[-3:])), default=0)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Process numbers of the workers that run."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def kill_one(
    process: subprocess.Popen[str], run_dir: Path, at_step: int, draw: random.Random
) -> tuple[int, int] | None:
    """Kills a worker a little after `at_step`; returns its rank and the step, None when training was faster."""
    while steps_done(run_dir) < at_step:
        if process.poll() is not None:
            return None
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 1))
    workers = workers_of(process)
    if not workers:
        return None
    rank, step = draw.randrange(len(workers)), steps_done(run_dir)
    os.kill(sorted(workers)[rank], signal.SIGKILL)
    return rank, step


def main() -> None:
    """Runs the trials and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--save-steps", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, rows, broken = random.Random(options.seed), [], []
    with tempfile.TemporaryDirectory() as folder:
        whole = []
        for seed in range(1, options.trials + 1):
            run_dir = Path(folder) / f"unbroken-{seed}"
            whole.append(metrics(start(run_dir, seed, options))[options.metric])
            last_step = steps_done(run_dir)
            run_dir, begin = Path(folder) / f"broken-{seed}", time.monotonic()
            process = start(run_dir, seed, options)
            killed = kill_one(process, run_dir, draw.randint(1, last_step - 1), draw)
            result = metrics(process)
            broken.append(None if result is None or killed is None else result[options.metric])
            where = "-" if killed is None else f"rank {killed[0]} after step {killed[1]}"
            shown = "failed" if result is None else f"{result[options.metric]:.4f}"
            rows.append([str(seed), where, f"{whole[-1]:.4f}", shown, f"{time.monotonic() - begin:.0f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
            if result is None:
                print((run_dir.parent / f"{run_dir.name}.log").read_text()[-2000:], file=sys.stderr)
    completed = [value for value in broken if value is not None]
    print_table(["seed", "killed", f"{options.metric} of the unbroken one", "of the other", "its s"], rows)
    names = ("mean", "spread")
    summary = {
        "trials": options.trials,
        "completed": len(completed),
        "killed": dict(zip(names, mean_and_spread(completed), strict=True)) if completed else None,
        "unbroken": dict(zip(names, mean_and_spread(whole), strict=True)),
    }
    print(json.dumps(summary))
    if len(completed) < options.trials:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
