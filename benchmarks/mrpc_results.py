"""Pair matching on MRPC: ours and the same recipe in transformers + PyTorch; retrieval with our two towers.

    python benchmarks/mrpc_results.py --data DIR [--seeds 3] [--epochs 4] [--log FILE]

Recipe of all: batch 32, AdamW 5e-5 with weight decay 0.01, linear schedule with 10 % warm-up, clipping at 1, encoder
dropout 0.1, at most 128 tokens (of the pair, or of each sentence for two towers). Metrics are of the last epoch on
test.tsv, never the best ones. Every finished run is appended to the log, and runs found there are not repeated, so the
script can be stopped and started again.
DIR holds train.tsv and test.tsv with `text TAB text TAB label` (1 = paraphrase, else 0).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sides import head, history, mean_and_spread, print_table, run_peer, train_ours, versions

OURS, PEER = "EasyTransfer, text_match_bert", "transformers + PyTorch"
TOWERS = "EasyTransfer, text_match_bert_two_tower"
SYSTEMS = {"ours": OURS, "peer": PEER, "towers": TOWERS}
PAIR_METRICS = ("accuracy", "f1", "auc")
RETRIEVAL = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "best_accuracy", "auc")
COLUMNS = {
    "inputSchema": "text_a:str:1,text_b:str:1,label:str:1",
    "firstSequence": "text_a",
    "secondSequence": "text_b",
}


def run(system: str, seed: int, train: Path, test: Path, options: argparse.Namespace) -> dict[str, object]:
    """Trains one system with one seed; every metric has one value per epoch."""
    if system == PEER:
        return run_peer("train", options.cores, train=train, dev=test, epochs=options.epochs, seed=seed)
    wanted = RETRIEVAL if system == TOWERS else PAIR_METRICS
    model = {"modelName": system.rpartition(" ")[2]}
    with tempfile.TemporaryDirectory() as folder:
        result = train_ours(
            train,
            test,
            Path(folder) / "run",
            cores=options.cores,
            epochs=options.epochs,
            seed=seed,
            flags=COLUMNS | model,
            **({"matching_loss": "softmax"} if system == TOWERS else {}),
        )
        evaluations = history(Path(folder) / "run", "evaluation")
    found = {name: [record[name] for record in evaluations] for name in wanted}
    return {**found, "process_s": result["process_s"], "peak_mb": result["peak_mb"]}


def read_log(path: Path, settings: dict[str, object]) -> list[dict[str, object]]:
    """Returns the logged runs that were made with `settings`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if record["settings"] == settings]


def summary(records: list[dict[str, object]], systems: list[str], metrics: tuple[str, ...]) -> list[list[str]]:
    """Returns a row per system: mean and spread over seeds of the last epoch's metrics in percent, seeds, seconds."""
    rows = []
    for system in systems:
        mine = [record for record in records if record["system"] == system]
        if not mine:
            continue
        cells = []
        for name in metrics:
            mean, spread = mean_and_spread([100 * record[name][-1] for record in mine])
            cells.append(f"{mean:.2f} ± {spread:.2f}")
        seconds = sum(record["process_s"] for record in mine) / len(mine)
        rows.append([system, *cells, str(len(mine)), f"{seconds:.0f}"])
    return rows


def main() -> None:
    """Runs what the log lacks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "mrpc.jsonl")
    options = parser.parse_args()
    settings = {"epochs": options.epochs, "rows": options.rows, "cores": options.cores}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        train = head(options.data / "train.tsv", Path(folder) / "train.tsv", options.rows)
        test = head(options.data / "test.tsv", Path(folder) / "test.tsv", options.rows)
        # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
        for seed in range(1, options.seeds + 1):
            for system in (SYSTEMS[name] for name in options.systems):
                done = read_log(options.log, settings)
                if any(record["system"] == system and record["seed"] == seed for record in done):
                    continue
                found = run(system, seed, train, test, options)
                record = {"system": system, "seed": seed, "settings": settings, "versions": versions(), **found}
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
                print(f"{system}, seed {seed}: {found}", flush=True)
    records = read_log(options.log, settings)
    print_table(["system", *PAIR_METRICS, "seeds", "s per run"], summary(records, [OURS, PEER], PAIR_METRICS))
    print()
    print_table(["system", *RETRIEVAL, "seeds", "s per run"], summary(records, [TOWERS], RETRIEVAL))


if __name__ == "__main__":
    main()
