"""Transfer on SST-2: ours on one and two workers, the recipe in transformers + PyTorch, ours from random weights.

    python benchmarks/sst2_results.py --data DIR [--seeds 3] [--epochs 3] [--log FILE]

Recipe of all: batch 32 (two workers: 16 each), AdamW 5e-5 with weight decay 0.01, linear schedule with 10 % warm-up,
clipping at 1, dropout 0.1, at most 128 tokens. The accuracy is that of the last epoch on dev.tsv, never the best one.
Every finished run is appended to the log, and runs found there are not repeated, so the script can be stopped and
started again.
DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sides import BATCH_SIZE, head, history, mean_and_spread, print_table, run_peer, train_ours, versions

OURS, PEER, SCRATCH = "EasyTransfer, MiniLM", "transformers + PyTorch, MiniLM", "EasyTransfer, random weights"
WORKERS = "EasyTransfer, MiniLM, 2 workers"
SYSTEMS = {"ours": OURS, "workers": WORKERS, "peer": PEER, "scratch": SCRATCH}


def run(system: str, seed: int, train: Path, dev: Path, options: argparse.Namespace) -> dict[str, object]:
    """Trains one system with one seed; `accuracy` has one value per epoch."""
    if system == PEER:
        return run_peer("train", options.cores, train=train, dev=dev, epochs=options.epochs, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        result = train_ours(
            train,
            dev,
            Path(folder) / "run",
            cores=options.cores,
            epochs=options.epochs,
            seed=seed,
            flags={"workerCount": 2, "batchSize": BATCH_SIZE // 2} if system == WORKERS else None,
            **({"from_scratch": "true"} if system == SCRATCH else {}),
        )
        accuracy = [record["accuracy"] for record in history(Path(folder) / "run", "evaluation")]
    return {"accuracy": accuracy, "process_s": result["process_s"], "peak_mb": result["peak_mb"]}


def read_log(path: Path, settings: dict[str, object]) -> list[dict[str, object]]:
    """Returns the logged runs that were made with `settings`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if record["settings"] == settings]


def summary(records: list[dict[str, object]]) -> list[list[str]]:
    """Returns the rows of the table: mean and spread over seeds, and the distance from the peer."""
    rows, means = [], {}
    for system in SYSTEMS.values():
        mine = [record for record in records if record["system"] == system]
        if not mine:
            continue
        mean, spread = mean_and_spread([100 * record["accuracy"][-1] for record in mine])
        means[system] = mean
        by_epoch = [
            f"{100 * sum(values) / len(mine):.1f}" for values in zip(*(r["accuracy"] for r in mine), strict=True)
        ]
        seconds = sum(record["process_s"] for record in mine) / len(mine)
        rows.append([system, f"{mean:.2f}", f"{spread:.2f}", str(len(mine)), " ".join(by_epoch), f"{seconds:.0f}"])
    for row in rows:
        row.append(f"{means[row[0]] - means[PEER]:+.2f}" if PEER in means else "")
    return rows


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "sst2.jsonl")
    options = parser.parse_args()
    settings = {"epochs": options.epochs, "rows": options.rows, "cores": options.cores}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    systems = [SYSTEMS[name] for name in options.systems]
    with tempfile.TemporaryDirectory() as folder:
        train = head(options.data / "train.tsv", Path(folder) / "train.tsv", options.rows)
        dev = head(options.data / "dev.tsv", Path(folder) / "dev.tsv", options.rows)
        # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
        for seed in range(1, options.seeds + 1):
            for system in systems:
                done = read_log(options.log, settings)
                if any(record["system"] == system and record["seed"] == seed for record in done):
                    continue
                found = run(system, seed, train, dev, options)
                record = {"system": system, "seed": seed, "settings": settings, "versions": versions(), **found}
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
                print(f"{system}, seed {seed}: {found['accuracy']}", flush=True)
    header = ["system", "accuracy %", "spread", "seeds", "after each epoch", "s per run", "from peer"]
    print_table(header, summary(read_log(options.log, settings)))


if __name__ == "__main__":
    main()
