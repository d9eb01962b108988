"""Kills a training with SIGKILL at random times, resumes it, and compares the final checkpoint with an unbroken run.

Prints one JSON line and exits with 1 when any trial ends with other weights or optimizer state.

    python benchmarks/kill_resume.py --trials 20
    python benchmarks/kill_resume.py --trials 20 -- easy_transfer_app train config.yaml --set checkpoint_dir={run_dir}
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from easytransfer.train import checkpoint

TOY = Path(__file__).resolve().parents[1] / "tests" / "easytransfer" / "kill_target.py"
DEFAULT_COMMAND = [sys.executable, str(TOY), "{run_dir}"]
POLL_SECONDS = 0.005


def start(command: list[str], run_dir: Path) -> subprocess.Popen[bytes]:
    """Starts the training in a process group of its own, so that a kill reaches all of it."""
    words = [word.replace("{run_dir}", str(run_dir)) for word in command]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a training that must succeed."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"training failed with {process.returncode}:\n{errors.decode()[-3000:]}")


def wait_for_progress(process: subprocess.Popen[bytes], run_dir: Path) -> bool:
    """Waits for the first checkpoint written by this process; returns False when it ends before."""
    before = newest(run_dir)
    while newest(run_dir) == before:
        if process.poll() is not None:
            return False
        time.sleep(POLL_SECONDS)
    return True


def newest(run_dir: Path) -> int:
    """Returns the step of the newest checkpoint, -1 without one."""
    return max(checkpoint.steps(run_dir), default=-1)


def digest(run_dir: Path) -> dict[str, str]:
    """Returns the hashes of the last checkpoint's files."""
    folder = checkpoint.resolve(run_dir / "model.ckpt-last")
    files = (checkpoint.WEIGHTS, checkpoint.TRAINING)
    return {"folder": folder.name, **{name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}}


def unbroken(command: list[str], run_dir: Path) -> tuple[dict[str, str], float]:
    """Runs without a kill; returns the digest and the seconds from the first checkpoint to the end."""
    process = start(command, run_dir)
    wait_for_progress(process, run_dir)
    begin = time.monotonic()
    finish(process)
    return digest(run_dir), time.monotonic() - begin


def broken(
    command: list[str], run_dir: Path, kills: int, span: float, draw: random.Random
) -> tuple[list[int], bool, float]:
    """Kills `kills` times, each after a random share of `span`, and lets the last start finish.

    Returns:
        The newest complete checkpoint at each kill, whether a save was under way at one of them, and the span for the
        next trial: less where a start ended before its kill, as on a machine that was busier before.
    """
    steps, during_save = [], False
    for _ in range(kills):
        process = start(command, run_dir)
        if not wait_for_progress(process, run_dir):
            finish(process)
            break
        begin, share = time.monotonic(), draw.uniform(0, span / kills)
        try:
            process.wait(share)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            steps.append(newest(run_dir))
            during_save |= any(run_dir.glob("model.ckpt-*.tmp"))
        else:
            span = min(span, time.monotonic() - begin)
            finish(process)
    finish(start(command, run_dir))
    return steps, during_save, span


def main() -> int:
    """Runs the trials of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, default=1, help="kills in each trial")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times")
    parser.add_argument("command", nargs="*", default=DEFAULT_COMMAND, help="training command with {run_dir} in it")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    equal, kills, saves = 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        expected, span = unbroken(arguments.command, Path(folder) / "unbroken")
        for trial in range(arguments.trials):
            run_dir = Path(folder) / f"trial-{trial}"
            steps, during_save, span = broken(arguments.command, run_dir, arguments.kills, span, draw)
            kills, saves = kills + steps, saves + during_save
            found = digest(run_dir)
            equal += found == expected
            others = "".join(f", other {name}" for name in found if found[name] != expected[name])
            print(f"trial {trial}: killed after checkpoint {steps}, equal so far {equal}{others}", file=sys.stderr)
    result = {"trials": arguments.trials, "equal": equal, "kills": len(kills), "killed_at": kills, "during_save": saves}
    print(json.dumps(result))
    return 0 if equal == arguments.trials else 1


if __name__ == "__main__":
    sys.exit(main())
