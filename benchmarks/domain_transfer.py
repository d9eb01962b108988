"""Transfer between domains of reviews: every algorithm beside training on one domain alone and on both together.

    python benchmarks/domain_transfer.py --data DIR [--seeds 3] [--pairs apparel:MR books+dvd:electronics] [--log FILE]
    python benchmarks/domain_transfer.py --table [--log FILE]

DIR has reviews of several domains: `<domain>.task.train`, `.test` (label, TAB, text), `.unlabel` (text). A pair names
the source domains, with + between them, and the target domain. All training rows of the sources have labels, of the
target 100 (half of each class, drawn by seed, the same for every algorithm) and none of its unlabelled texts. MiniLM
with 128 tokens makes as many steps with every algorithm, at one rate; nothing is chosen by results, accuracy is that on
the target's test rows with the weights of the last step. Finished runs are in the log and not repeated, so that the
script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
from domain_pretraining import call, lines_of
from image_sides import Log, claim
from sides import MODEL, mean_and_spread, print_table

PAIRS = ("apparel:MR", "MR:kitchen_housewares", "books:electronics", "kitchen_housewares:dvd")
# Shares of a batch that are not of the leading rows.
ALGORITHMS = {"source_only": 0.0, "target_only": 0.0, "joint": 0.25, "dann": 0.5, "reweight": 0.5}
ALGORITHMS |= {"drss": 0.5, "rtl": 0.5, "mgtl": 0.75}
BASELINES = ("source_only", "target_only", "joint")
LENGTH, BATCH, RATE = 128, 32, 5e-5
NO_SETTINGS = ("data", "seeds", "pairs", "algorithms", "log", "table")


def rows_of(path: Path, limit: int | None) -> list[tuple[str, str]]:
    """Returns text and label of the first rows of a file of labelled reviews."""
    rows = [line.split("\t", 1) for line in lines_of(path) if line.strip()]
    return [(" ".join(text.split()), label.strip()) for label, text in rows[:limit]]


def write(path: Path, rows: list[tuple[str, str]]) -> int:
    """Writes a table; returns its number of rows."""
    path.write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return len(rows)


def write_tables(pair: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, int]:
    """Writes source.tsv, target.tsv, unlabelled.tsv and test.tsv of a pair; returns their rows."""
    sources, target = pair.split(":")
    limit = options.rows
    source = [row for name in sources.split("+") for row in rows_of(options.data / f"{name}.task.train", limit)]
    labelled = rows_of(options.data / f"{target}.task.train", None)
    order = np.random.default_rng(seed).permutation(len(labelled))
    few = []
    for label in ("0", "1"):
        few += [labelled[i] for i in order if labelled[i][1] == label][: options.labelled // 2]
    texts = [(" ".join(line.split()), "") for line in lines_of(options.data / f"{target}.task.unlabel") if line.strip()]
    tables = {
        "source": source,
        "target": few,
        "unlabelled": texts[:limit],
        "test": rows_of(options.data / f"{target}.task.test", limit),
    }
    return {name: write(folder / f"{name}.tsv", rows) for name, rows in tables.items()}


def accuracy(pair: str, algorithm: str, seed: int, options: argparse.Namespace) -> float:
    """Trains and returns the accuracy on the target's test rows."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = write_tables(pair, seed, folder, options)
        leading = rows["target"] if algorithm == "target_only" else rows["source"]
        per_epoch = math.ceil(leading / (BATCH - round(BATCH * ALGORITHMS[algorithm])))
        sets = (
            *(f"model.pretrain_model_name_or_path={MODEL}", f"runtime.seed={seed}", f"train.eval_batch_size={BATCH}"),
            *("train.eval_every_steps=1000000", "train.save_checkpoint_steps=1000000"),
        )
        result = call(
            "train", modelName="domain_transfer", algorithm=algorithm, checkpointDir=folder / "run",
            trainTable=f"{folder}/target.tsv,{folder}/unlabelled.tsv", sourceTable=folder / "source.tsv",
            evalTable=folder / "test.tsv", inputSchema="text:str:1,label:str:1", firstSequence="text",
            labelName="label", labelEnumerateValues="0,1", sequenceLength=LENGTH, batchSize=BATCH, learningRate=RATE,
            numEpochs=options.steps / per_epoch, set=sets,
        )  # fmt: skip
    return 100 * float(result["metrics"]["accuracy"])


def report(log: Log, pairs: list[str]) -> None:
    """Prints accuracies by algorithm and pair, their means over pairs, and which methods are above the baselines."""
    found = {
        name: {(run["pair"], run["seed"]): run["accuracy"] for run in log.runs(algorithm=name) if run["pair"] in pairs}
        for name in ALGORITHMS
    }
    rows = []
    for name, values in found.items():
        if not values:
            continue
        cells = []
        for pair in pairs:
            mine = [value for (of, _), value in values.items() if of == pair]
            cells.append("%.1f ± %.1f" % mean_and_spread(mine) if mine else "")  # noqa: UP031 - a pair of numbers
        seeds = {seed for _, seed in values}
        whole = [seed for seed in seeds if all((pair, seed) in values for pair in pairs)]
        means = [sum(values[pair, seed] for pair in pairs) / len(pairs) for seed in whole]
        rows.append([name, *cells, "%.1f ± %.1f" % mean_and_spread(means) if means else ""])  # noqa: UP031
    print_table(["algorithm", *pairs, "mean over pairs"], rows)
    for name in ALGORITHMS:
        for baseline in BASELINES:
            if name not in BASELINES and found[name] and found[baseline]:
                print(claim(f"{name} is above {baseline}", found[name], found[baseline], "points"))


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the reviews")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), metavar="SOURCE[+SOURCE]:TARGET")
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--labelled", type=int, default=100, help="labelled rows of the target")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--rows", type=int, default=None, help="use only the first rows of each file, for a quick check"
    )
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "domain_transfer.jsonl")
    parser.add_argument("--table", action="store_true", help="print the table of the log and stop")
    options = parser.parse_args()
    log = Log(options.log, options, NO_SETTINGS)
    if not options.table:
        if options.data is None:
            parser.error("--data is required")
        # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
        for seed in range(1, options.seeds + 1):
            for pair in options.pairs:
                for algorithm in options.algorithms:
                    named = {"pair": pair, "algorithm": algorithm, "seed": seed}
                    if not log.runs(**named):
                        log.add(named, {"accuracy": accuracy(pair, algorithm, seed, options)})
    report(log, options.pairs)


if __name__ == "__main__":
    main()
