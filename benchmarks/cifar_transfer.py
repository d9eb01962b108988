"""Transfer to CIFAR-10: EfficientNet-Lite0 fine-tuned, the same from random weights, a linear head on frozen features.

    easy_transfer_app zoo fetch efficientnet-lite0 --offline=false
    python benchmarks/cifar_transfer.py [--data DIR] [--seeds 3] [--epochs 5] [--log FILE]

All sides have the same 4,000 training images at 128 pixels, the same normalisation, epochs and seeds; the frozen side
has a learning rate of its own. Nothing is chosen by results: the accuracy is that on the 800 test images with the
weights of the last epoch. Every finished run is appended to the log, and runs found there are not repeated, so the
script can be stopped and started again. DIR holds cifar10_subset.npz.

Wanted: fine-tuned at least 15 points above random weights, the frozen linear head at least 74 %.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from image_sides import SHARED, Log, accuracy, fit
from sides import mean_and_spread, print_table

NETWORK, SIZE = "efficientnet-lite0", 128
WANTED_GAIN, WANTED_FROZEN = 15.0, 74.0
NO_SETTINGS = ("data", "seeds", "log", "sides")
# Stages and the last convolution of the network: with them and the stem, all but the classifier is frozen.
_ALL_LAYERS = 8
SIDES: dict[str, dict[str, dict[str, Any]]] = {
    "fine-tuned": {"model": {"weights": "pretrained"}, "train": {}},
    "random": {"model": {"weights": "random"}, "train": {}},
    "frozen": {
        "model": {"weights": "pretrained"},
        "train": {"num_freezed_layers": _ALL_LAYERS, "learning_rate": 1e-2, "weight_decay_ratio": 0.0},
    },
}


def config_of(options: argparse.Namespace, side: str, seed: int) -> Any:
    """Returns the configuration of one run."""
    from appzoo.image_classify.config import ImageClassifyConfig

    table, chosen = options.data / "cifar10_subset.npz", SIDES[side]
    # The linear head sees images as they are, as a classifier on stored features would.
    augment = {"crop_padding": 0, "horizontal_flip": False} if side == "frozen" else {"crop_padding": 8}
    with np.load(table, allow_pickle=False) as arrays:
        names = ",".join(arrays["class_names"])
    train = {"num_epochs": options.epochs, "batch_size": options.batch, "learning_rate": options.rate}
    return ImageClassifyConfig(
        model_name="image_classify",
        data={"train_table": f"{table}#train", "eval_table": f"{table}#test", "label_enumerate_values": names},
        model={"network": NETWORK, "image_size": options.size, **chosen["model"]},
        augment=augment,
        train={**train, **chosen["train"]},
        runtime={"seed": seed},
    )


def measure(options: argparse.Namespace, side: str, seed: int) -> dict[str, Any]:
    """Trains one side; returns the accuracy on the test images, and how long it took."""
    from appzoo.image_classify.app import ImageClassify
    from appzoo.jobs.tables import load_rows

    begin = time.monotonic()
    app = ImageClassify(config_of(options, side, seed))
    app.load_assets(None)
    data, rows = app.config.data, options.rows
    train, test = (load_rows(app, table, with_labels=True).encoded for table in (data.train_table, data.eval_table))
    train, test = (table if rows is None else table.head(rows) for table in (train, test))
    app.on_train_table(train)
    fit(app, train)
    return {"accuracy": accuracy(app, test), "s": round(time.monotonic() - begin, 1)}


def report(log: Log, options: argparse.Namespace) -> None:
    """Prints the table, and what became of the two goals."""
    rows, means = [], {}
    for side in SIDES:
        runs = log.runs(side=side)
        if not runs:
            continue
        means[side], spread = mean_and_spread([100 * run["accuracy"] for run in runs])
        seconds = sum(run["s"] for run in runs) / len(runs)
        rows.append([side, f"{means[side]:.2f}", f"{spread:.2f}", str(len(runs)), f"{seconds:.0f}"])
    print_table(["weights", "accuracy %", "spread", "seeds", "s per run"], rows)
    if {"fine-tuned", "random"} <= set(means):
        gain = means["fine-tuned"] - means["random"]
        print(f"fine-tuned less random: {gain:+.2f} points, wanted {WANTED_GAIN:+.0f}: {gain >= WANTED_GAIN}")
    if "frozen" in means:
        found = means["frozen"]
        print(f"frozen linear head: {found:.2f} %, wanted {WANTED_FROZEN:.0f} %: {found >= WANTED_FROZEN}")


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--size", type=int, default=SIZE, help="pixels of a side")
    parser.add_argument("--rows", type=int, default=None, help="use only the first rows, for a quick check")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "cifar_transfer.jsonl")
    options = parser.parse_args()
    log = Log(options.log, options, NO_SETTINGS)
    for seed in range(1, options.seeds + 1):
        for side in options.sides:
            if not log.runs(seed=seed, side=side):
                log.add({"side": side, "seed": seed}, measure(options, side, seed))
    print()
    report(log, options)


if __name__ == "__main__":
    main()
