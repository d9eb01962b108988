"""Tables larger than the memory they may take: peak memory, waiting for input, and rows per second.

Makes a table, trains one epoch on it in a process of its own, and the same settings on a small part of the table: the
difference of the peaks is what the size of the table costs. Prints one JSON line for each number of workers.

    python benchmarks/large_tables.py images --rows 40000 --workers 1,2
    python benchmarks/large_tables.py text --rows 2000000
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

MAIN = "from appzoo.cli.main import main; raise SystemExit(main())"
# Rows of the small table, whose peak is that of model and program.
SMALL = 512
WORDS = 5000


def make_images(folder: Path, rows: int, size: int) -> None:
    """Writes JPEG files of `size` pixels square in two class folders, bright above or below."""
    random = np.random.default_rng(0)
    base = random.integers(0, 90, (64, size, size, 3)).astype(np.uint8)

    def write(number: int) -> None:
        label = ("bottom", "top")[number % 2]
        pixels = np.roll(base[number % 64], number // 64, axis=1).copy()
        half = slice(0, size // 2) if label == "top" else slice(size // 2, size)
        pixels[half] += 120
        Image.fromarray(pixels).save(folder / label / f"{number:06d}.jpg", quality=85)

    for label in ("bottom", "top"):
        (folder / label).mkdir(parents=True)
    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(rows)))


def make_text(path: Path, rows: int) -> None:
    """Writes texts of 5 to 30 made-up words; the first word decides the label."""
    random = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(rows):
            words = random.zipf(1.3, random.integers(5, 31)) % WORDS
            file.write(" ".join(f"w{word}" for word in words) + f"\t{('odd', 'even')[int(words[0]) % 2]}\n")


def arguments(kind: str, table: Path, held_out: Path, options: argparse.Namespace) -> list[str]:
    """Returns the flags of a training of one epoch."""
    common = [f"--inputTable={table},{held_out}", "--numEpochs=1", f"--set=data.table_memory_mb={options.memory_mb}"]
    if kind == "images":
        model = {"network": "resnet8_cifar", "image_size": options.size, "channels": 3}
        return [*common, "--modelName=image_classify", "--batchSize=64", f"--advancedParameters={json.dumps(model)}"]
    columns = ["--inputSchema=text:str:1,label:str:1", "--firstSequence=text", "--labelName=label"]
    labels = ["--labelEnumerateValues=odd,even", "--sequenceLength=32", "--batchSize=512"]
    return [*common, "--modelName=text_classify_cnn", *columns, *labels]


def trained(words: list[str], run: Path, workers: int) -> dict[str, float]:
    """Trains in a process of its own; returns peak memory, seconds, and the share of time waiting for input."""
    command = [sys.executable, "-c", MAIN, "train", *words, f"--checkpointDir={run}", f"--workerCount={workers}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    record, report = (json.loads((run / name).read_text()) for name in ("run.json", "report.json"))
    rates = [json.loads(line).get("rows_per_s") for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "peak_mb": record["peak_memory_mb"],
        "seconds": round(record["wall_time_s"], 1),
        "input_share": report["input_share"],
        "rows_per_s": round(float(np.median([rate for rate in rates if rate])), 1),
        "accuracy": report["metrics"]["accuracy"],
        "read": report["data"]["train"]["read"],
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("images", "text"))
    parser.add_argument("--rows", type=int, default=40000)
    parser.add_argument("--size", type=int, default=64, help="height and width of the pictures")
    parser.add_argument(
        "--memory-mb", type=float, default=None, help="allowance; default an eighth of the decoded rows"
    )
    parser.add_argument("--workers", default="1", help="comma list of numbers of workers")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where tables and runs go; default a temporary folder"
    )
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="large-tables-"))
    folder.mkdir(parents=True, exist_ok=True)
    images = options.kind == "images"
    decoded = options.rows * (options.size**2 * 3 if images else 35 * 4) / 1e6
    options.memory_mb = options.memory_mb or round(decoded / 8, 1)
    tables = {name: folder / (name if images else f"{name}.tsv") for name in ("large", "small")}
    for name, count in (("large", options.rows), ("small", SMALL)):
        if not tables[name].exists():
            make_images(tables[name], count, options.size) if images else make_text(tables[name], count)
    for workers in map(int, options.workers.split(",")):
        found = {}
        for name in ("small", "large"):
            run = folder / f"run-{name}-{workers}"
            shutil.rmtree(run, ignore_errors=True)
            found[name] = trained(arguments(options.kind, tables[name], tables["small"], options), run, workers)
        above = round(found["large"]["peak_mb"] - found["small"]["peak_mb"])
        facts = {"kind": options.kind, "rows": options.rows, "workers": workers, "decoded_mb": round(decoded)}
        print(
            json.dumps({**facts, "allowed_mb": options.memory_mb, "above_small_mb": above, **found["large"]}),
            flush=True,
        )


if __name__ == "__main__":
    main()
