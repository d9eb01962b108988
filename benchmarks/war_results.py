"""Width and adversarial training on Fashion-MNIST: fixed lambda against width adjusted regularization (WAR).

    python benchmarks/war_results.py --data DIR [--seeds 5] [--log FILE]

DIR holds the four idx files of Fashion-MNIST. For every seed, each width is trained with TRADES and each fixed lambda,
and every width above the first with WAR, whose zeta is the ratio of risks at the end of the thinnest network's run with
`--tuned` and the same seed. Rows, attack and number of steps are the same for all; images are brought to `--size`
pixels. The training rows and as many validation rows as `--held-out` are drawn from the training file; the test rows
are the first of the test file. Numbers are of the last step, no checkpoint is selected. `--on held_out` evaluates the
validation rows instead, for choosing settings.
Every finished run is appended to the log, and runs found there are not repeated, so the script can be stopped and
started again. The sizes are meant for about 25 minutes on two idle cores; `--epochs 1 --rows 200 --seeds 1` is a check.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
from image_sides import CLEAR, LABELS, Log
from sides import mean_and_spread, print_table

from appzoo.adversarial_training.app import AdversarialTraining
from appzoo.adversarial_training.config import AdversarialTrainingConfig
from appzoo.jobs.tables import load_rows
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import BadRows
from easytransfer.train.trainer import Trainer

FILES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
SHOWN = ("accuracy", "robust_accuracy", "stability", "local_lipschitz", "risk_ratio", "adv_lambda")
# What no run depends on.
NO_SETTINGS = ("data", "seeds", "widths", "lambdas", "log")
Record = dict


def config_of(
    options: argparse.Namespace, seed: int, width: int, method: dict[str, object]
) -> AdversarialTrainingConfig:
    """Returns the job of one cell; `method` sets lambda."""
    return AdversarialTrainingConfig(
        model_name="adversarial_training",
        data={"label_enumerate_values": LABELS},
        model={"network": options.network.format(width), "image_size": options.size, "channels": 1},
        augment={"crop_padding": 1},
        train={
            **{"num_epochs": options.epochs, "batch_size": options.batch, "eval_batch_size": 250},
            **{"learning_rate": options.rate, "log_step_count_steps": 10_000},
        },
        runtime={"seed": seed},
        adversarial={
            **{"epsilon": options.epsilon, "attack_steps": options.steps, "eval_attack": "pgd20"},
            **{"attack_step_size": 2.5 * options.epsilon / options.steps, "eval_step_size": options.epsilon / 8},
            **method,
        },
    )


def tables(options: argparse.Namespace) -> dict[str, EncodedTable]:
    """Returns the rows of the three splits; the first two are drawn from the training file with seed 0."""
    app = AdversarialTraining(config_of(options, 0, options.widths[0], {}))
    app.load_assets(None)
    files = {
        part: load_rows(app, str(options.data / name), True, BadRows("fail")).encoded for part, name in FILES.items()
    }
    order = np.random.default_rng(0).permutation(len(files["train"]))
    parts = np.split(order[: options.rows + options.held_out], [options.rows])
    found = {name: files["train"].take(rows) for name, rows in zip(("train", "held_out"), parts, strict=True)}
    return {**found, "test": files["test"].take(range(options.test_rows))}


def run(
    options: argparse.Namespace, seed: int, width: int, method: dict[str, object], rows: dict[str, EncodedTable]
) -> Record:
    """Trains one cell; returns the metrics after the last step, and the running risks."""
    begin = time.monotonic()
    app = AdversarialTraining(config_of(options, seed, width, method))
    app.load_assets(None)
    app.on_train_table(rows["train"])
    trainer = Trainer(app, app.config.train, app.config.runtime)
    trainer.fit(Batches(rows["train"], options.batch, shuffle=True, seed=seed))
    trained_s = time.monotonic() - begin
    metrics, _ = trainer.evaluate(Batches(rows[options.on], 250, shuffle=False))
    seconds = {"train_s": round(trained_s, 1), "all_s": round(time.monotonic() - begin, 1)}
    return {"metrics": metrics, "state": app.state(), "parameters": app.model.count_params(), **seconds}


def cells(options: argparse.Namespace) -> list[tuple[int, str]]:
    """Returns (width, method) in an order in which WAR finds its thin run done."""
    fixed = [(width, f"lambda {each:g}") for width in options.widths for each in options.lambdas]
    return fixed + [(width, "WAR") for width in options.widths[1:]]


def cell(log: Log, width: int, method: str) -> dict[int, Record]:
    """Returns the runs of one cell by seed."""
    return {run["seed"]: run for run in log.runs(width=width, method=method)}


def difference(first: dict[int, Record], second: dict[int, Record], name: str) -> tuple[float, float, int]:
    """Returns mean and standard error of second - first over the seeds both have, and how many these are."""
    values = [
        second[seed]["metrics"][name] - first[seed]["metrics"][name] for seed in sorted(first.keys() & second.keys())
    ]
    if not values:
        return math.nan, math.nan, 0
    mean, spread = mean_and_spread(values)
    return mean, spread / math.sqrt(len(values)), len(values)


def judged(what: str, found: tuple[float, float, int], sign: int) -> str:
    """Says whether a difference of the claimed sign is there."""
    mean, error, seeds = found
    if seeds < 2:
        return f"{what}: {mean:+.4f} with {seeds} seed(s), nothing can be said"
    clear = abs(mean) > CLEAR * error
    word = ("seen" if mean * sign > 0 else "NOT seen, the opposite is") if clear else "not clear"
    return f"{what}: {mean:+.4f} +- {error:.4f} (standard error, {seeds} seeds): {word}"


def claims(log: Log, options: argparse.Namespace) -> list[str]:
    """Returns one sentence per claim of the paper and cell that could show it."""
    thin, wide, lines = options.widths[0], options.widths[-1], []
    for each in options.lambdas:
        method = f"lambda {each:g}"
        pair = cell(log, thin, method), cell(log, wide, method)
        for name, sign, text in (("stability", -1, "falls"), ("local_lipschitz", 1, "rises")):
            lines.append(
                judged(f"{name} {text} from width {thin} to {wide} at {method}", difference(*pair, name), sign)
            )
    tuned = f"lambda {options.tuned:g}"
    for width in options.widths[1:]:
        pair = cell(log, width, tuned), cell(log, width, "WAR")
        for name in ("adv_lambda", "stability", "robust_accuracy"):
            lines.append(judged(f"{name} of WAR above that of {tuned} at width {width}", difference(*pair, name), 1))
        against = cell(log, thin, tuned), cell(log, width, "WAR")
        lines.append(
            judged(
                f"stability of WAR at width {width} above that of {tuned} at width {thin}",
                difference(*against, "stability"),
                1,
            )
        )
    return lines


def summary(log: Log, options: argparse.Namespace) -> list[list[str]]:
    """Returns a row per cell: mean and standard deviation over seeds."""
    rows = []
    for width, method in sorted(cells(options), key=lambda each: each[0]):
        mine = list(cell(log, width, method).values())
        if not mine:
            continue
        columns = []
        for name in SHOWN:
            mean, spread = mean_and_spread([record["metrics"][name] for record in mine])
            columns.append(f"{mean:.4f} ± {spread:.4f}")
        seconds = sum(record["all_s"] for record in mine) / len(mine)
        rows.append([str(width), method, *columns, str(len(mine)), f"{seconds:.0f}"])
    return rows


def parsed() -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 8, 16], help="the thinnest first")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[1.0, 6.0, 18.0])
    parser.add_argument("--tuned", type=float, default=6.0, help="lambda of the thin network that WAR starts from")
    parser.add_argument("--network", default="resnet8_w{}_cifar", help="name of the network, {} its width")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--held-out", type=int, default=500, help="validation rows, of the training file too")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--size", type=int, default=14, help="height and width of the images")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-3, help="peak learning rate")
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=5, help="of the attack in training")
    parser.add_argument("--on", choices=["test", "held_out"], default="test", help="rows that are evaluated")
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "war.jsonl")
    options = parser.parse_args()
    if options.tuned not in options.lambdas:
        parser.error("--tuned must be one of --lambdas")
    return options


def main() -> None:
    """Runs what the log lacks, prints the table and what it says about the paper's claims."""
    options = parsed()
    log, rows = Log(options.log, options, NO_SETTINGS), None
    # Seed by seed, so that a stopped script has complete tables for the seeds it reached.
    for seed in range(1, options.seeds + 1):
        for width, method in cells(options):
            if seed in cell(log, width, method):
                continue
            rows = rows or tables(options)
            if method == "WAR":
                state = cell(log, options.widths[0], f"lambda {options.tuned:g}")[seed]["state"]
                zeta = state["natural_risk"] / state["robust_risk"]
                chosen = {"adv_lambda_mode": "war", "adv_lambda": options.tuned, "war_zeta": f"{zeta!r}"}
            else:
                chosen = {"adv_lambda": float(method.split()[1])}
            found = run(options, seed, width, chosen, rows)
            log.add({"seed": seed, "width": width, "method": method, "chosen": chosen}, found)
    print_table(["width", "method", *SHOWN, "seeds", "s per run"], summary(log, options))
    print()
    print("\n".join(claims(log, options)))


if __name__ == "__main__":
    main()
