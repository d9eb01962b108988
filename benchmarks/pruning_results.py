"""Pruning in three dimensions beside pruning in one, at equal multiply-accumulates: Fashion-MNIST.

    python benchmarks/pruning_results.py [--data DIR] [--seeds 5] [--budgets 0.3 0.15] [--log FILE]

For every seed one network is trained; every kind of pruning starts from it, and has the same epochs of training after
its cut. Network and samples of the predictor are trained and compared within the training images. The test file is read
once per finished run, with the weights of the last epoch, and decides nothing. Every finished run is appended to the
log, and runs found there are not repeated, so the script can be stopped and started again; networks and samples stay in
`--folder`. DIR holds the four idx files of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from image_sides import LABELS, SHARED, Log, accuracy, claim, fit, load, parameters
from sides import mean_and_spread, print_table

DIMENSIONS = ("depth", "width", "resolution")
KINDS = {"three": DIMENSIONS, **{name: (name,) for name in DIMENSIONS}}
NO_SETTINGS = ("data", "seeds", "budgets", "folder", "log")


def make_app(options: argparse.Namespace, seed: int, train: Any, **model: Any) -> Any:
    """Returns the application for one run, prepared."""
    from appzoo.dimension_pruning.app import DimensionPruning
    from appzoo.dimension_pruning.config import DimensionPruningConfig

    shape = {"network": options.network, "image_size": 28, "channels": 1, "resolution_multiple": 2}
    # Every seed counts, also one whose samples tell less than the application would be content with.
    shape["max_predictor_error"] = 0.05
    epochs = {"base_epochs": options.base_epochs, "sample_epochs": options.sample_epochs}
    app = DimensionPruning(
        DimensionPruningConfig(
            data={"label_enumerate_values": LABELS},
            model={**shape, **epochs, **model},
            augment={"crop_padding": 2},
            train={
                "num_epochs": options.epochs,
                "batch_size": options.batch,
                "eval_batch_size": 500,
                "learning_rate": options.rate,
            },
            runtime={"seed": seed},
        )
    )
    app.load_assets(None)
    app.on_train_table(train)
    return app


def measure_whole(options: argparse.Namespace, seed: int, tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains the network that all kinds of pruning start from."""
    from appzoo.dimension_pruning.collect import Collection
    from easytransfer.distributed.workers import ONE_WORKER

    app = make_app(options, seed, tables["train"])
    collection = Collection(app, tables["train"], folder, ONE_WORKER)
    whole = collection.whole()
    app.start = (whole.config, collection.weights(whole))
    app.build_model()
    return {"test": accuracy(app, tables["test"]), "parameters": parameters(app)}


def prune(
    options: argparse.Namespace, seed: int, kind: str, budget: float, tables: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Prunes to a budget, trains, and measures; a budget that a dimension cannot reach has no result."""
    from easytransfer.distributed.workers import ONE_WORKER
    from easytransfer.errors import ConfigError

    app = make_app(options, seed, tables["train"], dimensions=list(KINDS[kind]), budget=budget)
    try:
        app.before_training(tables["train"], folder, ONE_WORKER)
    except ConfigError as error:
        return {"impossible": str(error)}
    fit(app, tables["train"])
    plan = app.plan
    shares = {name: round(plan["pruned"][name], 3) for name in DIMENSIONS}
    found = {"test": accuracy(app, tables["test"]), "macs": plan["pruned"]["macs"] / plan["whole"]["macs"], **shares}
    if "predictor" in plan:
        found |= {"predicted": plan["optimum"]["accuracy"], "left_out_error": plan["predictor"]["left_out_error"]}
    return {**found, "parameters": parameters(app)}


def report(log: Log, options: argparse.Namespace) -> None:
    """Prints the table and what became of the claim."""
    rows = []
    bases = log.runs(kind="whole")
    mean, spread = mean_and_spread([100 * run["test"] for run in bases])
    rows.append(["whole network", "1", "1.000", "1 / 1 / 1", f"{mean:.2f} ± {spread:.2f}", str(len(bases))])
    for budget in options.budgets:
        for kind in KINDS:
            runs = [run for run in log.runs(kind=kind, budget=budget) if "test" in run]
            if not runs:
                rows.append([kind, f"{budget:g}", "-", "-", "cannot be reached or was not run", "0"])
                continue
            mean, spread = mean_and_spread([100 * run["test"] for run in runs])
            macs = sum(run["macs"] for run in runs) / len(runs)
            shares = " / ".join(f"{sum(run[name] for run in runs) / len(runs):.2f}" for name in DIMENSIONS)
            rows.append([kind, f"{budget:g}", f"{macs:.3f}", shares, f"{mean:.2f} ± {spread:.2f}", str(len(runs))])
    print_table(["pruned", "budget", "MACs left", "depth / width / resolution", "test %", "seeds"], rows)
    print()
    for budget in options.budgets:
        runs = {kind: [run for run in log.runs(kind=kind, budget=budget) if "test" in run] for kind in KINDS}
        by_kind = {kind: {run["seed"]: 100 * run["test"] for run in found} for kind, found in runs.items() if found}
        means = {kind: sum(v.values()) / len(v) for kind, v in by_kind.items() if kind != "three"}
        if means and "three" in by_kind:
            best = max(means, key=means.get)
            what = f"budget {budget:g}: three dimensions above the best single one, {best}"
            print(claim(what, by_kind["three"], by_kind[best], "points"))


def main() -> None:
    """Runs what the log lacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "fashion_mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.15])
    parser.add_argument("--rows", type=int, default=6000, help="training images")
    parser.add_argument("--network", default="prunable_resnet20_w8_cifar")
    parser.add_argument("--base-epochs", type=float, default=12)
    parser.add_argument("--sample-epochs", type=float, default=1)
    parser.add_argument("--epochs", type=float, default=6, help="after the cut")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--folder", type=Path, default=Path("runs/pruning_results"), help="networks and samples")
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "pruning.jsonl")
    options = parser.parse_args()
    log = Log(options.log, options, NO_SETTINGS)
    tables = load(options.data, options.rows, 1)
    for seed in range(1, options.seeds + 1):
        folder = options.folder / f"{options.network}-{options.rows}-{seed}"
        if not log.runs(kind="whole", seed=seed):
            log.add({"kind": "whole", "seed": seed}, measure_whole(options, seed, tables, folder))
        for budget in options.budgets:
            for kind in KINDS:
                if log.runs(kind=kind, budget=budget, seed=seed):
                    continue
                begin = time.monotonic()
                found = prune(options, seed, kind, budget, tables, folder)
                log.add({"kind": kind, "budget": budget, "seed": seed}, {**found, "s": time.monotonic() - begin})
    print()
    report(log, options)


if __name__ == "__main__":
    main()
