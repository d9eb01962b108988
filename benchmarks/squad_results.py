"""Answers on English XQuAD: ours and the question-answering recipe of transformers + PyTorch. One table.

    python benchmarks/squad_results.py --data xquad.en.json [--seeds 5] [--epochs 6] [--log FILE]

The last 8 articles of the file are for evaluation, the others for training. Recipe of both: MiniLM, batch 16, AdamW
5e-5 with weight decay 0.01, linear schedule with 10 % warm-up, clipping at 1, windows of 384 tokens that share 128,
answers of at most 30 tokens. Both systems only give texts, from the weights after the last epoch; exact match and F1
are computed here for both, by the rule of SQuAD 1.1. Every finished run is appended to the log, and runs found there
are not repeated, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from sides import (
    ADAM_EPSILON,
    MODEL,
    WARMUP,
    WEIGHT_DECAY,
    mean_and_spread,
    print_table,
    run_ours,
    run_process,
    versions,
)

from appzoo.text_comprehension import squad_metrics as squad

OURS, PEER = "EasyTransfer, MiniLM", "transformers + PyTorch, MiniLM"
HELD_OUT = 8
BATCH_SIZE, LEARNING_RATE, LENGTH, SHARED, QUERY = 16, 5e-5, 384, 128, 64
COLUMNS = {"firstSequence": "context", "secondSequence": "question"}


def split(source: Path, folder: Path, articles: int | None) -> tuple[Path, Path]:
    """Writes the training and the evaluation file; `articles` of each when that is given, for a quick check."""
    data = json.loads(source.read_text(encoding="utf-8"))["data"]
    parts = {"train": data[:-HELD_OUT][:articles], "dev": data[-HELD_OUT:][:articles]}
    for name, chosen in parts.items():
        (folder / f"{name}.json").write_text(json.dumps({"version": "1.1", "data": chosen}), encoding="utf-8")
    return folder / "train.json", folder / "dev.json"


def right_answers(path: Path) -> dict[str, list[str]]:
    """Returns the right answers by question id."""
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    questions = [question for article in data for paragraph in article["paragraphs"] for question in paragraph["qas"]]
    return {question["id"]: [answer["text"] for answer in question["answers"]] for question in questions}


def run_our_side(seed: int, train: Path, dev: Path, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Trains, then predicts with the last checkpoint."""
    advanced = {
        "pretrain_model_name_or_path": MODEL,
        "max_query_length": QUERY,
        # What windows share, as the step from one to the next behind the longest question.
        "doc_stride": LENGTH - 3 - QUERY - SHARED,
        "weight_decay_ratio": WEIGHT_DECAY,
        "warmup_ratio": WARMUP,
        "lr_decay": "linear_after_warmup",
        "adam_epsilon": ADAM_EPSILON,
    }
    found = run_ours(
        "train",
        options.cores,
        advanced,
        modelName="text_comprehension_bert",
        inputTable=f"{train},{dev}",
        labelName="answers",
        sequenceLength=LENGTH,
        checkpointDir=folder / "run",
        numEpochs=options.epochs,
        batchSize=BATCH_SIZE,
        learningRate=LEARNING_RATE,
        seed=seed,
        **COLUMNS,
    )
    output = folder / "answers.jsonl"
    run_ours(
        "predict",
        options.cores,
        checkpointPath=folder / "run" / "model.ckpt-last",
        inputTable=dev,
        outputTable=output,
        outputSchema="qas_id,predictions",
        **COLUMNS,
    )
    rows = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    return {"answers": {row["qas_id"]: row["predictions"] for row in rows}, "process_s": found["process_s"]}


def run_peer_side(seed: int, train: Path, dev: Path, options: argparse.Namespace) -> dict[str, object]:
    """Runs `peer_squad.py`."""
    values = {"train": train, "dev": dev, "epochs": options.epochs, "batch-size": BATCH_SIZE, "seed": seed}
    values |= {"learning-rate": LEARNING_RATE, "length": LENGTH, "stride": SHARED, "threads": options.cores}
    script = Path(__file__).with_name("peer_squad.py")
    flags = [f"--{name}={value}" for name, value in values.items()]
    return run_process([sys.executable, str(script), *flags], options.cores)


def read_log(path: Path, settings: dict[str, object]) -> list[dict[str, object]]:
    """Returns the logged runs that were made with `settings`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if record["settings"] == settings]


def summary(records: list[dict[str, object]]) -> list[list[str]]:
    """Returns the rows of the table: mean and spread over seeds, and the distance from the peer."""
    rows, means = [], {}
    for system in (OURS, PEER):
        mine = [record for record in records if record["system"] == system]
        if not mine:
            continue
        found = {name: mean_and_spread([record[name] for record in mine]) for name in ("exact_match", "f1")}
        means[system] = found["f1"][0]
        numbers = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in found.values()]
        seconds = sum(record["process_s"] for record in mine) / len(mine)
        rows.append([system, *numbers, str(len(mine)), f"{seconds:.0f}"])
    return [[*row, f"{means[row[0]] - means[PEER]:+.2f}" if PEER in means else ""] for row in rows]


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="xquad.en.json or another file in SQuAD's form")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--systems", nargs="+", choices=["ours", "peer"], default=["ours", "peer"])
    parser.add_argument("--articles", type=int, default=None, help="use only the first articles, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "squad.jsonl")
    options = parser.parse_args()
    settings = {"epochs": options.epochs, "articles": options.articles, "cores": options.cores}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
    for seed in range(1, options.seeds + 1):
        for system in [{"ours": OURS, "peer": PEER}[name] for name in options.systems]:
            done = read_log(options.log, settings)
            if any(record["system"] == system and record["seed"] == seed for record in done):
                continue
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                train, dev = split(options.data, folder, options.articles)
                if system == OURS:
                    found = run_our_side(seed, train, dev, folder, options)
                else:
                    found = run_peer_side(seed, train, dev, options)
                scores = squad.evaluate(found["answers"], right_answers(dev))
            record = {"system": system, "seed": seed, "settings": settings, "versions": versions(), **scores}
            with options.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps({**record, "process_s": found["process_s"]}) + "\n")
            print(f"{system}, seed {seed}: {scores}", flush=True)
    header = ["system", "exact match %", "F1 %", "seeds", "s per run", "F1 from peer"]
    print_table(header, summary(read_log(options.log, settings)))


if __name__ == "__main__":
    main()
