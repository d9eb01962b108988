"""One large network beside several small ones of no more operations, trained together and apart: Fashion-MNIST.

    python benchmarks/cotraining_results.py [--data DIR] [--seeds 5] [--splits 2] [--log FILE]

The large network is divided by the paper's rules; all sides have the same few training images, epochs and seeds.
Trained apart means the same views and the same step without the agreement of the predictions. Nothing is chosen by
results: the test file is read once per finished run, with the weights of the last epoch. Every finished run is appended
to the log, and runs found there are not repeated, so the script can be stopped and started again. DIR holds the four
idx files of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from image_sides import LABELS, SHARED, Log, claim, fit, load, parameters
from sides import mean_and_spread, print_table

NO_SETTINGS = ("data", "seeds", "splits", "log")
# What the paper has: 40 epochs of 300.
WARMUP_SHARE = 40 / 300
_EVALUATION_BATCH = 500


def make_app(options: argparse.Namespace, seed: int, split: int, together: bool, train: Any) -> Any:
    """Returns the application for one run, prepared."""
    from appzoo.co_training.app import CoTraining
    from appzoo.co_training.config import CoTrainingConfig

    app = CoTraining(
        CoTrainingConfig(
            data={"label_enumerate_values": LABELS},
            model={
                "network": options.network,
                "split": split,
                "image_size": 28,
                "channels": 1,
                "agreement_weight": options.weight if together else 0.0,
                "agreement_warmup_epochs": options.epochs * WARMUP_SHARE,
                "weight_decay_division": "exp",
            },
            augment={"crop_padding": 2},
            train={
                "num_epochs": options.epochs,
                "batch_size": options.batch,
                "eval_batch_size": _EVALUATION_BATCH,
                "learning_rate": options.rate,
            },
            runtime={"seed": seed},
        )
    )
    app.load_assets(None)
    app.on_train_table(train)
    return app


def operations(options: argparse.Namespace, split: int) -> int:
    """Returns the multiply-accumulates for one image of all networks."""
    from modelzoo.cnn.names import named
    from modelzoo.cnn.profile import profile

    config = named(f"split{split}_{options.network}").replace(image_size=28, channels=1)
    return split * profile(config, 10).macs


def test(app: Any, table: Any) -> dict[str, float]:
    """Returns accuracies and the share of images on which the networks disagree, of the weights in memory."""
    import tensorflow as tf

    from appzoo.co_training.metrics import EnsembleEvaluator

    call = tf.function(lambda images: app.model({"image": images}, training=False))
    evaluator = EnsembleEvaluator(LABELS.split(","), with_auc=False)
    for start in range(0, len(table), _EVALUATION_BATCH):
        rows = np.arange(start, min(start + _EVALUATION_BATCH, len(table)))
        found = call(tf.constant(table.columns["image"][rows]))
        evaluator.update({"label_id": table.columns["label_id"][rows]}, {k: v.numpy() for k, v in found.items()})
    metrics = evaluator.result()
    return {"test": metrics["accuracy"], "member": metrics["member_mean_accuracy"], "apart": metrics["disagreement"]}


def measure(options: argparse.Namespace, seed: int, split: int, together: bool, tables: dict[str, Any]) -> dict:
    """Trains and tests one side."""
    begin = time.monotonic()
    app = make_app(options, seed, split, together, tables["train"])
    fit(app, tables["train"])
    found = test(app, tables["test"])
    return {**found, "parameters": parameters(app), "s": round(time.monotonic() - begin, 1)}


def sides(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns what is compared."""
    divided = [{"split": split, "together": together} for split in options.splits for together in (True, False)]
    return [{"split": 1, "together": False}, *divided]


def report(log: Log, options: argparse.Namespace) -> None:
    """Prints the table and what became of the claims."""
    whole, rows = operations(options, 1), []
    for side in sides(options):
        runs = log.runs(**side)
        if not runs:
            continue
        name = "one large network" if side["split"] == 1 else f"{side['split']} networks"
        how = "-" if side["split"] == 1 else "co-trained" if side["together"] else "apart"
        shown = [mean_and_spread([100 * run[key] for run in runs]) for key in ("test", "member", "apart")]
        cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in shown]
        share = operations(options, side["split"]) / whole
        rows.append([name, how, f"{runs[0]['parameters']:,}", f"{share:.3f}", *cells, str(len(runs))])
    print_table(["networks", "trained", "parameters", "MACs", "test %", "member %", "disagree %", "seeds"], rows)
    print()
    values = {
        (side["split"], side["together"], key): {run["seed"]: 100 * run[key] for run in log.runs(**side)}
        for side in sides(options)
        for key in ("test", "member")
    }
    large = values[1, False, "test"]
    for split in options.splits:
        ours = values[split, True, "test"]
        print(claim(f"{split} co-trained networks above the large one", ours, large, "points"))
        print(claim(f"{split} co-trained networks above {split} apart", ours, values[split, False, "test"], "points"))
        print(claim(f"{split} co-trained networks above their mean", ours, values[split, True, "member"], "points"))


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "fashion_mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--splits", type=int, nargs="+", default=[2])
    parser.add_argument("--rows", type=int, default=2000, help="training images")
    parser.add_argument("--network", default="wrn10_9_b2_digits", help="the large one")
    parser.add_argument("--weight", type=float, default=0.5, help="of the agreement")
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "cotraining.jsonl")
    options = parser.parse_args()
    for split in options.splits:
        if operations(options, split) > operations(options, 1):
            parser.error(f"{split} networks in place of {options.network} need more operations; choose another one")
    log = Log(options.log, options, NO_SETTINGS)
    tables = load(options.data, options.rows, 1)
    for seed in range(1, options.seeds + 1):
        for side in sides(options):
            if not log.runs(seed=seed, **side):
                log.add({**side, "seed": seed}, measure(options, seed, tables=tables, **side))
    print()
    report(log, options)


if __name__ == "__main__":
    main()
