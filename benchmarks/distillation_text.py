"""Distillation of text classifiers on SST-2: small students trained alone, from a MiniLM teacher, and from its probes.

    python benchmarks/distillation_text.py --data DIR [--seeds 3] [--students cnn layers2 layers3 layers4] [--log FILE]

The teacher is MiniLM with the recipe of `sst2_results.py`, one seed. Every student trains on the same rows with the
same optimizer and epochs whether it has the teacher or not: TextCNN from random weights, and every n-th layer of MiniLM
for two, three and four layers. `layers` learns outputs and attentions of layers for an epoch more, and then answers.
The accuracy is that of the last epoch on dev.tsv, never the best one. Latency is that of the signature `predict_ids` of
the export, 128 tokens, on the cores given, the median of 20 calls.
Every finished run is appended to the log, and runs found there are not repeated, so the script can be stopped and
started again; the teacher stays in `--folder`.
DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from image_sides import Log, claim
from sides import (
    ADAM_EPSILON,
    BATCH_SIZE,
    LABELS,
    LEARNING_RATE,
    MAX_LENGTH,
    MODEL,
    SCHEMA,
    WARMUP,
    WEIGHT_DECAY,
    head,
    history,
    mean_and_spread,
    print_table,
    run_ours,
    run_process,
)

from appzoo.experiment.cost import SIZES
from appzoo.experiment.run import MEASURE

TEACHER = "teacher"
_MINILM = {"pretrain_model_name_or_path": MODEL}
# Settings of the network by student, and the rate at which it is trained.
STUDENTS: dict[str, dict[str, Any]] = {
    "cnn": {"modelName": "distillation_text_cnn", "learningRate": 1e-3, "advanced": {}},
    "layers2": {"modelName": "distillation_text_bert", "learningRate": 1e-4, "advanced": {**_MINILM, "num_layers": 2}},
    "layers3": {"modelName": "distillation_text_bert", "learningRate": 1e-4, "advanced": {**_MINILM, "num_layers": 3}},
    "layers4": {"modelName": "distillation_text_bert", "learningRate": 1e-4, "advanced": {**_MINILM, "num_layers": 4}},
}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"kd_loss": "none"},
    "kd": {"kd_loss": "mse"},
    "probes": {"kd_loss": "mse", "probes": "true"},
    "layers": {"kd_loss": "mse", "hidden_weight": 1, "attention_weight": 1, "layer_epochs": 1},
}
NO_SETTINGS = ("data", "seeds", "students", "methods", "folder", "log")


def measured(run: Path, result: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Returns accuracy after each epoch, time, and what the export costs."""
    cost = run_process([*MEASURE, str(result["export"])], options.cores)
    accuracy = [record["accuracy"] for record in history(run, "evaluation")]
    wanted = ("parameters", "bytes", *(f"ms_{rows}" for rows in SIZES))
    return {"accuracy": accuracy, "process_s": result["process_s"], **{name: cost[name] for name in wanted}}


def train_student(student: str, method: str, seed: int, run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one student and measures it."""
    network = STUDENTS[student]
    flags = {"modelName": network["modelName"], "learningRate": network["learningRate"]}
    if method != "plain":
        flags["teacher"] = options.folder / TEACHER
    return train(run, options.epochs, seed, flags, {**network["advanced"], **METHODS[method]}, options)


def train(
    run: Path, epochs: float, seed: int, flags: dict[str, Any], settings: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Trains with the recipe of all sides into a run folder; `flags` and `settings` add to it."""
    recipe = {
        "weight_decay_ratio": WEIGHT_DECAY,
        "warmup_ratio": WARMUP,
        "lr_decay": "linear_after_warmup",
        "adam_epsilon": ADAM_EPSILON,
    }
    job = {
        "modelName": "text_classify_bert",
        "inputTable": f"{options.folder / 'train.tsv'},{options.folder / 'dev.tsv'}",
        "inputSchema": SCHEMA,
        "firstSequence": "content",
        "labelName": "label",
        "labelEnumerateValues": LABELS,
        "sequenceLength": MAX_LENGTH,
        "checkpointDir": run,
        "batchSize": BATCH_SIZE,
        "learningRate": LEARNING_RATE,
        "numEpochs": epochs,
        "seed": seed,
        "overwrite": "true",
    }
    return run_ours("train", options.cores, recipe | settings, **(job | flags))


def copy_tables(options: argparse.Namespace) -> None:
    """Puts the tables, or their first rows, into the folder of the runs."""
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in ("train.tsv", "dev.tsv"):
        copy = options.folder / name
        if head(options.data / name, copy, options.rows) != copy:
            copy.write_bytes((options.data / name).read_bytes())


def report(log: Log) -> None:
    """Prints the table and what became of the claims."""
    teacher = log.runs(student=TEACHER)
    rows, plan = [], [(TEACHER, "plain"), *((student, method) for student in STUDENTS for method in METHODS)]
    for student, method in plan:
        mine = log.runs(student=student, method=method)
        if not mine:
            continue
        mean, spread = mean_and_spread([100 * record["accuracy"][-1] for record in mine])
        last = mine[-1]
        times = [f"{statistics.median(record[f'ms_{size}'] for record in mine):.1f}" for size in SIZES]
        size = [f"{last['parameters']:,}", f"{last['bytes'] / 1e6:.1f}"]
        seconds = f"{statistics.fmean(record['process_s'] for record in mine):.0f}"
        kept, faster = "", ""
        if teacher and student != TEACHER:
            kept = f"{mean / teacher[0]['accuracy'][-1]:.1f}"
            faster = f"{teacher[0]['ms_1'] / statistics.median(record['ms_1'] for record in mine):.2f}"
        result = [f"{mean:.2f} ± {spread:.2f}", kept, faster]
        rows.append([student, method, *size, *times, *result, str(len(mine)), seconds])
    header = ["network", "method", "parameters", "MB", *(f"ms of {size}" for size in SIZES)]
    print_table([*header, "accuracy %", "% of the teacher's", "times as fast", "seeds", "s per run"], rows)
    for student in STUDENTS:
        found = {
            method: {r["seed"]: 100 * r["accuracy"][-1] for r in log.runs(student=student, method=method)}
            for method in METHODS
        }
        for better, worse in (("kd", "plain"), ("probes", "kd"), ("layers", "kd")):
            if found[better] and found[worse]:
                print(claim(f"{student}: {better} is above {worse}", found[better], found[worse], "points"))


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--teacher-epochs", type=float, default=3)
    parser.add_argument("--students", nargs="+", choices=list(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/distillation_sst2"))
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "distillation_text.jsonl")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data is required")
    copy_tables(options)
    log = Log(options.log, options, NO_SETTINGS)
    if not log.runs(student=TEACHER):
        run = options.folder / TEACHER
        log.add(
            {"student": TEACHER, "method": "plain", "seed": 1},
            measured(run, train(run, options.teacher_epochs, 1, {}, _MINILM, options), options),
        )
    # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
    for seed in range(1, options.seeds + 1):
        for student in options.students:
            for method in options.methods:
                named = {"student": student, "method": method, "seed": seed}
                if (student == "cnn" and method in ("probes", "layers")) or log.runs(**named):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    run = Path(folder) / "run"
                    log.add(named, measured(run, train_student(student, method, seed, run, options), options))
    report(log)


if __name__ == "__main__":
    main()
