"""AdaBERT on SST-2: a network searched with a MiniLM teacher and trained, beside TextCNN and two layers of MiniLM.

    python benchmarks/adabert_sst2.py --data DIR [--seeds 3] [--search-epochs 8] [--epochs 8] [--log FILE]

The teacher is MiniLM with the recipe of `sst2_results.py`, one seed. Of each seed a network is searched, trained from
new weights with the same teacher, and measured beside the two students of `distillation_text.py`, which learn from the
teacher's logits for as many epochs. The accuracy is that of the last epoch on dev.tsv, never the best one; `encoder
parameters` are those that are no vectors of tokens, positions and segments, no head and no probe. Latency is that of
the signature `predict_ids` of the export, 128 tokens, the median of 20 calls.
Every finished run is appended to the log, and runs found there are not repeated, so the script can be stopped and
started again; teacher and searches stay in `--folder`.
DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from distillation_text import METHODS, STUDENTS, TEACHER, copy_tables, measured, train
from image_sides import Log, claim
from safetensors import safe_open
from sides import MODEL, mean_and_spread, print_table

from appzoo.experiment.cost import SIZES

_MINILM = {"pretrain_model_name_or_path": MODEL}
ADABERT = "adabert"
# Names of weights that are none of the encoder.
_OTHERS = re.compile(
    r"embeddings|(^|/)(words|positions|segments|embedding_layer_norm|head|heads)/|probes|training_only"
)
_RATES = {ADABERT: 5e-4, "search": 5e-4}
NO_SETTINGS = ("data", "seeds", "networks", "folder", "log")


def encoder_parameters(run: Path) -> int:
    """Returns how many numbers the trained encoder of a run has."""
    place = Path(json.loads((run / "report.json").read_text(encoding="utf-8"))["checkpoint"])
    total = 0
    with safe_open(place / "weights.safetensors", framework="numpy") as stored:
        for name in stored.keys():  # noqa: SIM118 - no dict
            if not _OTHERS.search(name):
                size = 1
                for length in stored.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what a search and the network that it found have in common."""
    return {**_MINILM, "hidden_size": options.hidden_size, "max_cells": options.max_cells}


def searched(seed: int, options: argparse.Namespace) -> tuple[Path, float]:
    """Returns the run of a search, made where it is not there yet, and the seconds it took."""
    run, facts = options.folder / f"search-{seed}", options.folder / f"search-{seed}.json"
    if not facts.is_file():
        flags = {"modelName": ADABERT, "learningRate": _RATES["search"], "teacher": options.folder / TEACHER}
        settings = settings_of(options) | {
            "temp_decay_steps": options.temp_decay_steps,
            "arch_learning_rate": options.arch_learning_rate,
            "efficiency_weight": options.efficiency_weight,
        }
        result = train(run, options.search_epochs, seed, flags, settings, options)
        facts.write_text(json.dumps({"process_s": result["process_s"]}), encoding="utf-8")
    return run, json.loads(facts.read_text(encoding="utf-8"))["process_s"]


def run_network(network: str, seed: int, run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one network and measures it."""
    teacher = options.folder / TEACHER
    further: dict[str, Any] = {}
    if network == ADABERT:
        found, seconds = searched(seed, options)
        arch = json.loads((found / "arch.json").read_text(encoding="utf-8"))
        further = {"search_s": seconds, "cells": arch["cells"]}
        flags = {"modelName": ADABERT, "learningRate": _RATES[ADABERT], "teacher": teacher}
        settings = settings_of(options) | {"arch_path": found}
    else:
        student = STUDENTS[network]
        flags = {"modelName": student["modelName"], "learningRate": student["learningRate"], "teacher": teacher}
        settings = {**student["advanced"], **METHODS["kd"]}
    result = train(run, options.epochs, seed, flags, settings, options)
    return {**measured(run, result, options), "encoder_parameters": encoder_parameters(run), **further}


def report(log: Log) -> None:
    """Prints the table, and what became of the claims."""
    rows, accuracies = [], {}
    teacher = log.runs(network=TEACHER)[0]
    for network in (TEACHER, ADABERT, "cnn", "layers2"):
        mine = log.runs(network=network)
        if not mine:
            continue
        accuracies[network] = {record["seed"]: 100 * record["accuracy"][-1] for record in mine}
        inside = [record["encoder_parameters"] for record in mine]
        smaller = f"{teacher['encoder_parameters'] / max(inside):.1f}" if max(inside) else "none"
        times = [f"{statistics.median(record[f'ms_{size}'] for record in mine):.1f}" for size in SIZES]
        accuracy = "%.2f ± %.2f" % mean_and_spread(list(accuracies[network].values()))  # noqa: UP031 - a pair
        seconds = statistics.fmean(record["process_s"] + record.get("search_s", 0) for record in mine)
        cells = ", ".join(str(record["cells"]) for record in mine if "cells" in record)
        size = [f"{max(inside):,}", smaller, f"{mine[-1]['bytes'] / 1e6:.1f}"]
        rows.append([network, *size, *times, accuracy, str(len(mine)), cells, f"{seconds:.0f}"])
    header = ["network", "encoder parameters", "times smaller", "MB", *(f"ms of {size}" for size in SIZES)]
    print_table([*header, "accuracy %", "seeds", "cells", "s per run"], rows)
    for other in ("cnn", "layers2"):
        if ADABERT in accuracies and other in accuracies:
            print(claim(f"{ADABERT} is above {other}", accuracies[ADABERT], accuracies[other], "points"))


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    networks = [ADABERT, "cnn", "layers2"]
    parser.add_argument("--networks", nargs="+", choices=networks, default=networks)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--search-epochs", type=float, default=8)
    parser.add_argument("--teacher-epochs", type=float, default=3)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--max-cells", type=int, default=4)
    parser.add_argument("--temp-decay-steps", type=int, default=1500)
    parser.add_argument("--arch-learning-rate", type=float, default=1e-2)
    parser.add_argument("--efficiency-weight", type=float, default=1.0)
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/adabert_sst2"))
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "adabert_sst2.jsonl")
    options = parser.parse_args()
    copy_tables(options)
    log = Log(options.log, options, NO_SETTINGS)
    if not log.runs(network=TEACHER):
        run = options.folder / TEACHER
        result = train(run, options.teacher_epochs, 1, {}, _MINILM, options)
        found = measured(run, result, options) | {"encoder_parameters": encoder_parameters(run)}
        log.add({"network": TEACHER, "seed": 1}, found)
    # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
    for seed in range(1, options.seeds + 1):
        for network in options.networks:
            named = {"network": network, "seed": seed}
            if not log.runs(**named):
                with tempfile.TemporaryDirectory() as folder:
                    log.add(named, run_network(network, seed, Path(folder) / "run", options))
    report(log)


if __name__ == "__main__":
    main()
