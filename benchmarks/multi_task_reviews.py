"""Reviews of six domains as six tasks of one encoder, beside an encoder for each.

    python benchmarks/multi_task_reviews.py --data DIR [--seeds 3] [--domains MR books ...] [--log FILE]
    python benchmarks/multi_task_reviews.py --table [--log FILE]

DIR has reviews of several domains: `<domain>.task.train` and `.test` (label, TAB, text). MiniLM with 128 tokens sees as
many rows of all domains together as the single encoders do, at one rate; tasks are drawn in proportion to their rows,
and with a temperature of 3. Nothing is chosen by results: accuracy is that on a domain's test rows with the weights of
the last step. Finished runs are in the log and not repeated, so that the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

from domain_pretraining import call
from domain_transfer import rows_of, write
from image_sides import Log, claim
from sides import MODEL, mean_and_spread, print_table

DOMAINS = ("MR", "apparel", "books", "dvd", "electronics", "kitchen_housewares")
# Sampling temperature of the tasks; None trains an encoder for each.
SIDES: dict[str, float | None] = {"one encoder each": None, "together": 1.0, "together, temperature 3": 3.0}
LENGTH, BATCH, RATE = 128, 32, 5e-5
NO_SETTINGS = ("data", "seeds", "log", "table")


def accuracies(side: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Trains a side; returns the accuracy on the test rows of each domain."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = {}
        for domain in options.domains:
            for part in ("train", "test"):
                found = rows_of(options.data / f"{domain}.task.{part}", options.rows)
                rows[domain, part] = write(folder / f"{domain}.{part}.tsv", found)
        per_epoch = {domain: math.ceil(rows[domain, "train"] / BATCH) for domain in options.domains}
        sets = (
            *(f"model.pretrain_model_name_or_path={MODEL}", f"runtime.seed={seed}", f"train.eval_batch_size={BATCH}"),
            *("train.eval_every_steps=1000000", "train.save_checkpoint_steps=1000000"),
        )
        shared = {
            "inputSchema": "text:str:1,label:str:1", "firstSequence": "text", "labelName": "label",
            "labelEnumerateValues": "0,1", "sequenceLength": LENGTH, "batchSize": BATCH, "learningRate": RATE,
        }  # fmt: skip
        temperature = SIDES[side]
        if temperature is None:
            result = {}
            for domain in options.domains:
                tables = {name: folder / f"{domain}.{part}.tsv" for name, part in _TABLES.items()}
                epochs = options.steps / per_epoch[domain]
                run = call(
                    "train", modelName="text_classify_bert", checkpointDir=folder / f"run-{domain}",
                    inputTable=f"{tables['train_table']},{tables['eval_table']}", numEpochs=epochs, set=sets, **shared,
                )  # fmt: skip
                result[domain] = 100 * float(run["metrics"]["accuracy"])
            return result
        names = {domain: domain.lower() for domain in options.domains}
        tasks = {
            names[domain]: {name: f"{folder}/{domain}.{part}.tsv" for name, part in _TABLES.items()}
            for domain in options.domains
        }
        updates = math.ceil(sum(rows[domain, "train"] for domain in options.domains) / BATCH)
        run = call(
            "train", modelName="multi_task", checkpointDir=folder / "run", tasks=json.dumps(tasks),
            numEpochs=options.steps * len(options.domains) / updates,
            set=(*sets, f"sampling.temperature={temperature}"), **shared,
        )  # fmt: skip
        return {domain: 100 * float(run["metrics"][f"{names[domain]}_accuracy"]) for domain in options.domains}


_TABLES = {"train_table": "train", "eval_table": "test"}


def _shown(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f} ± {spread:.1f}"


def report(log: Log, domains: list[str]) -> None:
    """Prints accuracies by side and domain, and their means over domains."""
    rows, means = [], {}
    for side in SIDES:
        mine = log.runs(side=side)
        if not mine:
            continue
        cells = [_shown([run["accuracy"][name] for run in mine]) for name in domains]
        means[side] = {run["seed"]: sum(run["accuracy"].values()) / len(domains) for run in mine}
        rows.append([side, *cells, _shown(list(means[side].values())), str(len(mine))])
    print_table(["side", *domains, "mean", "seeds"], rows)
    alone, *others = SIDES
    for side in others:
        if side in means and alone in means:
            print(claim(f"{side} is above {alone}", means[side], means[alone], "points"))


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the reviews")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--steps", type=int, default=100, help="updates of each domain's own encoder")
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows of each file")
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "multi_task_reviews.jsonl")
    parser.add_argument("--table", action="store_true", help="print the table of the log and stop")
    options = parser.parse_args()
    log = Log(options.log, options, NO_SETTINGS)
    if not options.table:
        if options.data is None:
            parser.error("--data is required")
        # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
        for seed in range(1, options.seeds + 1):
            for side in SIDES:
                if not log.runs(side=side, seed=seed):
                    log.add({"side": side, "seed": seed}, {"accuracy": accuracies(side, seed, options)})
    report(log, options.domains)


if __name__ == "__main__":
    main()
