"""Adapters (LoRA) against training the whole encoder on SST-2: accuracy, what is trained, size of a checkpoint, time.

    python benchmarks/lora_sst2.py --data DIR [--seeds 3] [--epochs 2] [--rows N] [--log FILE]

The recipe is that of `sst2_results.py`; adapters have rank 8, alpha 16 and the learning rate 1e-3. The accuracy is that
of the last epoch on dev.tsv. Finished runs are in the log and are not repeated.
DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sides import head, history, mean_and_spread, print_table, train_ours, versions
from sst2_results import read_log

WHOLE, LORA = "whole encoder", "LoRA, rank 8"
RANK, ALPHA, RATE = 8, 16, 1e-3


def run(system: str, seed: int, train: Path, dev: Path, options: argparse.Namespace) -> dict[str, object]:
    """Trains one system with one seed."""
    lora = {"lora_rank": RANK, "lora_alpha": ALPHA} if system == LORA else {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        flags = {"learningRate": RATE} if lora else None
        result = train_ours(
            train, dev, place, cores=options.cores, epochs=options.epochs, seed=seed, flags=flags, **lora
        )
        report = json.loads((place / "report.json").read_text(encoding="utf-8"))
        files = [file for file in Path(report["checkpoint"]).iterdir() if file.is_file()]
        return {
            "accuracy": [record["accuracy"] for record in history(place, "evaluation")],
            "parameters": report.get("parameters"),
            "checkpoint_mb": round(sum(file.stat().st_size for file in files) / 1e6, 2),
            "process_s": result["process_s"],
        }


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "lora_sst2.jsonl")
    options = parser.parse_args()
    settings = {"epochs": options.epochs, "rows": options.rows, "cores": options.cores}
    settings |= {"rank": RANK, "alpha": ALPHA, "learning_rate": RATE}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        train = head(options.data / "train.tsv", Path(folder) / "train.tsv", options.rows)
        dev = options.data / "dev.tsv"
        for seed in range(1, options.seeds + 1):
            for system in (WHOLE, LORA):
                done = read_log(options.log, settings)
                if any(record["system"] == system and record["seed"] == seed for record in done):
                    continue
                found = run(system, seed, train, dev, options)
                record = {"system": system, "seed": seed, "settings": settings, "versions": versions(), **found}
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
                print(f"{system}, seed {seed}: {found}", flush=True)
    rows = []
    for system in (WHOLE, LORA):
        mine = [record for record in read_log(options.log, settings) if record["system"] == system]
        mean, spread = mean_and_spread([100 * record["accuracy"][-1] for record in mine])
        share = mine[0]["parameters"]
        trained = "100 %" if share is None else f"{share['stored'] / share['all']:.2%}"
        seconds = sum(record["process_s"] for record in mine) / len(mine)
        rows.append(
            [system, f"{mean:.2f}", f"{spread:.2f}", str(len(mine)), trained, str(mine[0]["checkpoint_mb"]),
             f"{seconds:.0f}"]
        )  # fmt: skip
    print_table(["system", "accuracy %", "spread", "seeds", "trained", "checkpoint MB", "s per run"], rows)


if __name__ == "__main__":
    main()
