"""Both sides of a comparison on equal terms: each in a process of its own, on the same cores, measured from outside."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MODEL = "minilm-l6-en"
SCHEMA = "content:str:1,label:str:1"
LABELS = "0,1"
MAX_LENGTH = 128
# Recipe of both sides, the usual one for fine-tuning BERT.
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, WARMUP = 32, 5e-5, 0.01, 0.1
ADAM_EPSILON = 1e-8

_EASY_TRANSFER = [sys.executable, "-c", "from appzoo.cli.main import main; raise SystemExit(main())"]


def run_process(command: Sequence[str], cores: int, workers: int = 1) -> dict[str, object]:
    """Runs a command, which starts `workers` processes, on `cores` cores of this machine.

    Returns:
        The JSON object it printed last on stdout, with `process_s` (its whole life) and `peak_mb` (resident memory,
        as the kernel counted it) added.
    """
    mine = sorted(os.sched_getaffinity(0))[:cores]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(max(1, len(mine) // workers)),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    begin = time.monotonic()
    process = subprocess.Popen(
        list(command), stdout=subprocess.PIPE, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, mine)
    )
    output = process.stdout.read().decode()
    # wait4 and not wait: it is what tells the memory of this one child.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    if process.returncode:
        raise SystemExit(f"failed with exit code {process.returncode}: {' '.join(command)}")
    result = json.loads(output.strip().splitlines()[-1])
    return {**result, "process_s": round(seconds, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def run_peer(part: str, cores: int, **options: object) -> dict[str, object]:
    """Runs `peer.py`'s `part` with `--name=value` options (see `run_process`)."""
    script = Path(__file__).with_name("peer.py")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return run_process([sys.executable, str(script), part, f"--threads={cores}", *flags], cores)


def run_ours(mode: str, cores: int, advanced: dict[str, object] | None = None, **flags: object) -> dict[str, object]:
    """Runs `easy_transfer_app --mode=...` with the flags of the original (see `run_process`)."""
    command = [*_EASY_TRANSFER, f"--mode={mode}", *(f"--{name}={value}" for name, value in flags.items())]
    if advanced:
        command.append("--advancedParameters=" + " ".join(f"{key}={value}" for key, value in advanced.items()))
    return run_process(command, cores, int(flags.get("workerCount", 1)))


def train_ours(
    train: Path,
    dev: Path,
    folder: Path,
    *,
    cores: int,
    epochs: float,
    seed: int,
    precision: str = "none",
    flags: dict[str, object] | None = None,
    **advanced: object,
) -> dict[str, object]:
    """Trains with the recipe above into `folder`; `flags` replaces flags, `advanced` adds `--advancedParameters`."""
    recipe = {
        "pretrain_model_name_or_path": MODEL,
        "weight_decay_ratio": WEIGHT_DECAY,
        "warmup_ratio": WARMUP,
        "lr_decay": "linear_after_warmup",
        "adam_epsilon": ADAM_EPSILON,
    }
    job = {
        "modelName": "text_classify_bert",
        "inputTable": f"{train},{dev}",
        "inputSchema": SCHEMA,
        "firstSequence": "content",
        "labelName": "label",
        "labelEnumerateValues": LABELS,
        "sequenceLength": MAX_LENGTH,
        "checkpointDir": folder,
        "batchSize": BATCH_SIZE,
        "learningRate": LEARNING_RATE,
        "numEpochs": epochs,
        "seed": seed,
        "mixedPrecision": precision,
        "overwrite": "true",
    }
    return run_ours("train", cores, recipe | advanced, **(job | (flags or {})))


def history(folder: Path, event: str) -> list[dict[str, float]]:
    """Returns the records of one kind (`step` or `evaluation`) of a run folder's `metrics.jsonl`."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def head(source: Path, target: Path, rows: int | None) -> Path:
    """Copies the first `rows` lines of a table to `target`; returns `source` itself for None."""
    if rows is None:
        return source
    lines = source.read_text(encoding="utf-8").splitlines()[:rows]
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return target


def versions() -> dict[str, str]:
    """Returns the versions of the packages that decide speed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("easytransfer", "tensorflow", "torch", "transformers", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and sample standard deviation (0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table with aligned columns."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    for line in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


# Both sides in one process, in turns ---------------------------------------------------------------------------


def timed(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Returns median seconds of each side, of wall clock and of processor time; sides take turns, once unmeasured."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, call in sides.items():
            wall, used = time.perf_counter(), time.process_time()
            call()
            if turn:
                found[name].append((time.perf_counter() - wall, time.process_time() - used))
    return {name: tuple(map(statistics.median, zip(*times, strict=True))) for name, times in found.items()}


def say_peak(step: Callable[[], object]) -> None:
    """Makes two steps and prints the largest memory that this process had."""
    step(), step()
    # Of this program alone: the figure of getrusage begins with what the process that started it had.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"peak_mb": round(int(status["VmHWM"].split()[0]) / 1024)}))


def print_steps(found: dict[str, tuple[float, float]], command: Sequence[str]) -> None:
    """Prints what a step of each side costs beside torch.

    Args:
        found: Seconds of wall clock and of processor time by side, one of which is `torch`.
        command: A script and its options, which with `--side=SIDE` ends with `say_peak` of that side.
    """
    rows = []
    for side, (wall, used) in found.items():
        words = [sys.executable, *command, f"--side={side}"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        memory = json.loads(done.stdout.strip().splitlines()[-1])["peak_mb"]
        ratios = [f"{found['torch'][place] / found[side][place]:.2f}" for place in (0, 1)]
        rows.append([side, f"{wall:.2f}", f"{used:.2f}", *ratios, f"{memory:,}"])
    header = ["side", "wall clock, s", "processor, s", "ratio", "ratio of processor time", "peak memory, MB"]
    print_table(header, rows)
