"""Win prediction (TSSTN) on games made by a rule, with what must hold there, and on Dota 2 matches beside baselines.

    python benchmarks/win_results.py synthetic [--seeds 3] [--games 4000] [--only easy|hard]
    python benchmarks/win_results.py dota2 --data FILE [--seeds 3] [--folds 5]

`synthetic`: games of 16 to 30 (`easy`) or 6 to 30 frames (`hard`) in six groups whose importance changes over time;
in `hard` it moves strongly, and only there a temporal stage can gain anything. Every seed draws other games.
`dota2`: FILE is a table of matches with gold graphs (`...gold_graph.csv`); folds by match, predictions of all folds are
measured together, intervals are by bootstrap over matches. All methods read the same columns: gold, its change over two
minutes, the time, and at the last frame kills, levels, last hits and assists. Baselines: the sign of the gold; logistic
regression without intercept on the columns and their products with the time; gradient boosting on both views of every
frame (scikit-learn). Where TSSTN does not win, the table says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from appzoo import discovery
from appzoo.jobs.inference import evaluated_with_outputs
from appzoo.jobs.tables import load_rows
from appzoo.jobs.trained import model_call
from appzoo.win_prediction.app import WinPrediction
from appzoo.win_prediction.config import WinPredictionConfig
from appzoo.win_prediction.fidelity import measured_fidelity
from appzoo.win_prediction.metrics import Games
from appzoo.win_prediction.pages import games_of
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.train.trainer import Trainer

GROUPS = {"gold": 1, "kill": 2, "tower": 3, "wild": 5, "soldier": 3, "heroes": 9}
FRAMES, TEST_GAMES, LATE = 30, 2000, 26
TAU = np.linspace(0, 1, FRAMES)
TINY = {"spatial_units": [16, 16], "temporal_units": 16}
MODELS = {
    "two stages, learned weights": {},
    "two stages, uniform weights": {"temporal": "uniform"},
    "joint training, no stages": {"training": "joint"},
    "no learned scale": {"scale": "none"},
    "tanh-bounded scores, no learned scale": {"scale": "none", "score_bound": "tanh"},
}
TSSTN, UNIFORM, JOINT = list(MODELS)[:3]
DOTA_GROUPS = ["gold = gold", "trend = gold_trend", "players = kills levels last_hits assists"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


# Games made by a rule ----------------------------------------------------------------------------------------


def importance(kind: str) -> np.ndarray:
    """Returns how much each group decides at each frame, [frames, groups]."""
    t = TAU
    if kind == "easy":
        rows = [1.2 - 0.6 * t, 1 - 0.7 * t, 0.3 + 1.3 * t, 0.2 + 0.9 * t, 0.1 + 1.5 * t**2, 0.7 * (1 - t) + 0.1]
    else:
        bell = lambda centre, width: np.exp(-(((t - centre) / width) ** 2))  # noqa: E731
        rows = [
            *(1.6 * bell(0, 0.35) + 0.05, 1.4 * bell(0.35, 0.22) + 0.05, 1.8 * sigmoid(14 * (t - 0.6))),
            *(1.2 * bell(0.6, 0.2), 2.2 * sigmoid(18 * (t - 0.8)), 0.9 * bell(0, 0.25)),
        ]
    return np.stack(rows, axis=1)


def made_games(kind: str, count: int, seed: int) -> EncodedTable:
    """Returns games as the application encodes them."""
    random, fixed = np.random.default_rng([seed, count]), np.random.default_rng(7)
    units = [abs(v) if len(v) == 1 else v for v in (fixed.normal(size=width) for width in GROUPS.values())]
    units = [unit / np.linalg.norm(unit) for unit in units]
    skill = random.normal(0, 0.35, count)
    steps = random.normal(0, 1.2 / FRAMES**0.5, (count, FRAMES, 6)) + 3 * skill[:, None, None] / FRAMES
    latent = steps.cumsum(axis=1)
    latent[..., 5] = random.normal(size=count)[:, None]
    seen = [latent[..., k : k + 1] * unit + random.normal(0, 0.25, (count, FRAMES, len(unit)))
            for k, unit in enumerate(units)]  # fmt: skip
    lengths = random.integers(16 if kind == "easy" else 6, FRAMES + 1, count)
    last, rows = latent[np.arange(count), lengths - 1], importance(kind)[lengths - 1]
    logit = 2 * (rows * last).sum(1) if kind == "easy" else 2.2 * (rows * np.tanh(1.5 * last)).sum(1)
    winner = (random.random(count) < sigmoid(logit)).astype(np.float32)
    real = np.arange(FRAMES) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    minutes = np.broadcast_to(np.arange(FRAMES) / 2, real.shape)[real].astype(np.float32)
    frames = np.concatenate(seen, axis=-1)[real].astype(np.float32)
    columns = {"frames": Ragged(frames, offsets), "minutes": Ragged(minutes, offsets), "winner": winner}
    return EncodedTable(columns, {"frames_mask": "frames"})


def trained(table: EncodedTable, seed: int, groups: list[str], **model: object) -> WinPrediction:
    """Returns the application after its training: 6 spatial and 8 temporal epochs, or 14 of joint training."""
    epochs = 14.0 if model.get("training") == "joint" else 8.0
    config = WinPredictionConfig(
        model_name="win_prediction",
        model={"groups": groups, "spatial_epochs": 6, **TINY, **model},
        train={"num_epochs": epochs, "batch_size": 128, "learning_rate": 3e-3},
    )
    app = WinPrediction(config)
    app.load_assets(None)
    app.on_train_table(table)
    trainer = Trainer(app, config.train, RuntimeConfig(seed=seed), None)
    trainer.fit(Batches(table, 128, shuffle=True, seed=seed))
    return app


def predicted(app: WinPrediction, table: EncodedTable) -> tuple[Games, dict[str, np.ndarray]]:
    """Returns the predictions for a table, and all outputs."""
    call = model_call(app, labelled=True)
    _, outputs = evaluated_with_outputs(app, table, call, 256, 8, keep=len(table))
    return games_of(table, outputs), outputs


def logistic(train: EncodedTable, test: EncodedTable) -> Games:
    """Returns predictions of logistic regression on the columns of single frames."""
    from sklearn.linear_model import LogisticRegression

    labels = np.repeat(train.columns["winner"], train.columns["frames"].lengths)
    fitted = LogisticRegression(max_iter=1000).fit(train.columns["frames"].values, labels)
    return with_logits(test, fitted.decision_function(test.columns["frames"].values))


def with_logits(table: EncodedTable, logit: np.ndarray) -> Games:
    """Returns predictions given frame by frame."""
    minutes = table.columns["minutes"]
    return Games(minutes.lengths, table.columns["winner"], minutes.values, logit)


def at_frame(games: Games, frame: int) -> float:
    """Returns the accuracy at one frame of the games that have it."""
    starts = np.cumsum([0, *games.lengths[:-1]])[games.lengths > frame]
    return float(games.scores["accuracy"][starts + frame].mean())


def correlations(kind: str, table: EncodedTable, outputs: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns how mean weights over time go with the true shares of importance, by group."""
    share = importance(kind) / importance(kind).sum(axis=1, keepdims=True)
    lengths = table.columns["minutes"].lengths
    sums, counts = np.zeros([FRAMES, 6]), np.zeros(FRAMES)
    for row, length in enumerate(lengths):
        sums[:length] += outputs["weights"][row][:length]
        counts[:length] += 1
    mean = sums / counts[:, None]
    return {name: float(np.corrcoef(mean[:, k], share[:, k])[0, 1]) for k, name in enumerate(GROUPS)}


def synthetic_seed(kind: str, seed: int, games: int) -> dict[str, dict[str, float]]:
    """Returns the measurements of one seed by model."""
    train, test = made_games(kind, games, seed), made_games(kind, TEST_GAMES, seed + 1000)
    found = {}
    for name, model in MODELS.items():
        begin = time.process_time()
        app = trained(train, seed, [f"{group} = {group}:{width}" for group, width in GROUPS.items()], **model)
        predictions, outputs = predicted(app, test)
        found[name] = predictions.metrics() | {"late": at_frame(predictions, LATE)}
        found[name]["first"], found[name]["last"] = at_frame(predictions, 0), at_frame(predictions, FRAMES - 1)
        found[name]["seconds"] = time.process_time() - begin
        logits = [outputs["logit"][row][:n] for row, n in enumerate(predictions.lengths)]
        parts = [outputs["contributions"][row][:n] for row, n in enumerate(predictions.lengths)]
        gap = np.abs(np.concatenate(logits) - np.concatenate(parts).astype(np.float64).sum(-1))
        found[name]["completeness_gap"] = float(gap.max())
        if name == TSSTN:
            found[name] |= measured_fidelity(test, app.games.groups, app._outputs, 256)
            found[name] |= {f"r_{group}": r for group, r in correlations(kind, test, outputs).items()}
    others = {"logistic regression, all columns": logistic(train, test)}
    others["gold sign only"] = with_logits(test, np.sign(test.columns["frames"].values[:, 0].astype(np.float64)))
    for name, predictions in others.items():
        found[name] = predictions.metrics() | {"late": at_frame(predictions, LATE)}
    return found


def claims(kind: str, seeds: list[dict[str, dict[str, float]]]) -> Iterator[tuple[str, str, bool]]:
    """Yields what must hold, what was found over the seeds, and whether it holds on each of them."""

    def each(value: Callable[[dict[str, dict[str, float]]], float]) -> list[float]:
        return [value(found) for found in seeds]

    def shown(values: list[float], digits: int = 3) -> str:
        return " / ".join(f"{value:.{digits}g}" for value in values)

    gaps = {"completeness gap <= 1e-5": ("completeness_gap", 1e-5), "oddness gap <= 1e-6": ("oddness_gap", 1e-6)}
    gaps["causality gap <= 1e-6"] = ("causality_gap", 1e-6)
    for claim, (name, limit) in gaps.items():
        values = each(lambda found, name=name: found[TSSTN][name])
        yield claim, shown(values), max(values) <= limit
    ratios = each(lambda f: f[TSSTN]["deletion_top"] / f[TSSTN]["deletion_random"])
    lower = each(lambda f: f[TSSTN]["deletion_random"] / max(f[TSSTN]["deletion_least"], 1e-9))
    yield "deletion: top > 3 x random > 9 x least", f"{shown(ratios)}, {shown(lower)}", min(ratios + lower) > 3
    gain = each(lambda f: f[UNIFORM]["nll"] - f[TSSTN]["nll"])
    late = each(lambda f: 100 * (f[TSSTN]["late"] - f[UNIFORM]["late"]))
    if kind == "hard":
        yield "NLL below uniform weights", shown(gain), min(gain) > 0
        yield f"accuracy at frame {LATE} + >= 3 points over uniform", shown(late), min(late) >= 3
        for group, least in (("gold", 0.95), ("tower", 0.9), ("soldier", 0.8)):
            values = each(lambda f, group=group: f[TSSTN][f"r_{group}"])
            yield f"weights of {group} follow its importance, r >= {least}", shown(values), min(values) >= least
    margin = each(lambda f: 100 * (f[TSSTN]["accuracy"] - f["gold sign only"]["accuracy"]))
    yield "accuracy + >= 10 points over gold alone", shown(margin), min(margin) >= 10
    cost = each(lambda f: 100 * (f[JOINT]["accuracy"] - f[TSSTN]["accuracy"]))
    yield "within 1 point of joint training", shown(cost), max(map(abs, cost)) <= 1
    rise = each(lambda f: 100 * (f[TSSTN]["last"] - f[TSSTN]["first"]))
    yield "accuracy rises over the game, points", shown(rise), min(rise) > 0


def synthetic(options: argparse.Namespace) -> None:
    """Prints both tables for each kind of games."""
    for kind in [options.only] if options.only else ["easy", "hard"]:
        seeds = [synthetic_seed(kind, seed, options.games) for seed in range(options.seeds)]
        print(f"\n{kind}: {options.games:,} games for training, {TEST_GAMES:,} for the test, {options.seeds} seeds")
        print(f"{'model':<40}{'accuracy':<24}{'NLL':<24}{f'accuracy, frame {LATE}':<24}CPU s")
        for name in seeds[0]:
            cells = [" / ".join(f"{found[name][m]:.3f}" for found in seeds) for m in ("accuracy", "nll", "late")]
            cells[1] = "" if name == "gold sign only" else cells[1]
            seconds = np.mean([found[name].get("seconds", np.nan) for found in seeds])
            print(
                f"{name:<40}"
                + "".join(f"{cell:<24}" for cell in cells)
                + ("" if np.isnan(seconds) else f"{seconds:.0f}")
            )
        flips = [" / ".join(f"{f[TSSTN][f'deletion_{n}']:.3f}" for f in seeds) for n in ("top", "random", "least")]
        print(f"deletion flips: top {flips[0]}, random {flips[1]}, least {flips[2]}")
        print("correlation of mean weights with true importance: " + ", ".join(
            f"{group} " + " / ".join(f"{f[TSSTN][f'r_{group}']:.2f}" for f in seeds) for group in GROUPS))  # fmt: skip
        for claim, values, holds in claims(kind, seeds):
            print(f"{'holds' if holds else 'FAILS':<7}{claim:<56}{values}")


# Dota 2 ------------------------------------------------------------------------------------------------------


def flat(table: EncodedTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns columns and scaled time of all frames, and their labels."""
    frames, time_ = table.columns["frames"], table.columns["minutes"].values / 20
    return frames.values.astype(np.float64), time_, np.repeat(table.columns["winner"], frames.lengths)


def of_gold_sign(train: EncodedTable, test: EncodedTable, seed: int) -> np.ndarray:
    """Returns logits whose sign is that of the gold and whose size is that of its accuracy in the training table."""
    x, _, y = flat(train)
    share = np.mean((x[:, 0] > 0) == (y == 1))
    return np.sign(flat(test)[0][:, 0]) * np.log(share / (1 - share))


def of_logistic_regression(train: EncodedTable, test: EncodedTable, seed: int) -> np.ndarray:
    """Returns logits of columns and their products with the time, without intercept: odd, like ours."""
    from sklearn.linear_model import LogisticRegression

    (x, t, y), (x2, t2, _) = flat(train), flat(test)
    size = np.sqrt((x**2).mean(axis=0))
    columns = [np.concatenate([v / size, v / size * s[:, None]], axis=1) for v, s in ((x, t), (x2, t2))]
    return LogisticRegression(fit_intercept=False, max_iter=2000).fit(columns[0], y).decision_function(columns[1])


def of_gradient_boosting(train: EncodedTable, test: EncodedTable, seed: int) -> np.ndarray:
    """Returns logits of trees on columns and time, trained on both views of every frame and averaged over them."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    (x, t, y), (x2, t2, _) = flat(train), flat(test)
    both = np.concatenate([np.column_stack([x, t]), np.column_stack([-x, t])])
    model = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=200,
        l2_regularization=1.0,
        random_state=seed,
    ).fit(both, np.concatenate([y, 1 - y]))
    ahead, behind = (model.decision_function(np.column_stack([sign * x2, t2])) for sign in (1, -1))
    return (ahead - behind) / 2


def of_tsstn(train: EncodedTable, test: EncodedTable, seed: int) -> np.ndarray:
    """Returns the logits of the application."""
    return predicted(trained(train, seed, DOTA_GROUPS), test)[0].logit


METHODS = {
    "TSSTN": of_tsstn,
    "gold sign": of_gold_sign,
    "logistic regression": of_logistic_regression,
    "gradient boosting": of_gradient_boosting,
}


def folds_of(count: int, folds: int) -> np.ndarray:
    """Returns the fold of each match, by a hash of its number."""
    return np.array([zlib.crc32(str(row).encode()) % folds for row in range(count)])


def out_of_fold(table: EncodedTable, folds: int, seed: int) -> dict[str, Games]:
    """Returns predictions of each method for every match, by a model that has not seen it."""
    fold, offsets = folds_of(len(table), folds), table.columns["frames"].offsets
    logits = {name: np.zeros(offsets[-1]) for name in METHODS}
    for number in range(folds):
        train, test = (table.take(np.flatnonzero(chosen)) for chosen in (fold != number, fold == number))
        places = np.concatenate([np.arange(*offsets[row : row + 2]) for row in np.flatnonzero(fold == number)])
        for name, method in METHODS.items():
            logits[name][places] = method(train, test, seed)
    return {name: with_logits(table, logit) for name, logit in logits.items()}


def in_minute(games: Games, minute: int | None) -> Games:
    """Returns the frames of one minute, of the matches that have some; all frames for None."""
    if minute is None:
        return games
    chosen = np.floor(games.minutes).astype(int) == minute
    lengths = np.bincount(games.game[chosen], minlength=len(games.lengths))
    kept = lengths > 0
    return Games(lengths[kept], games.winner[kept], games.minutes[chosen], games.logit[chosen])


def difference(
    ours: Games, theirs: Games, name: str, seed: int = 0, resamples: int = 1000
) -> tuple[float, float, float]:
    """Returns ours minus theirs of a frame metric, and the 95% interval by bootstrap over the same matches."""
    gaps = ours.sums(ours.scores[name] - theirs.scores[name])
    counts = np.random.default_rng(seed).multinomial(len(gaps), np.full(len(gaps), 1 / len(gaps)), resamples)
    drawn = counts @ gaps / (counts @ ours.lengths)
    return gaps.sum() / ours.lengths.sum(), *np.percentile(drawn, [2.5, 97.5])


def dota2(options: argparse.Namespace) -> None:
    """Prints the tables by minute for the first seed, and the differences of all seeds."""
    discovery.resolve("win_prediction")
    config = WinPredictionConfig(model_name="win_prediction", model={"groups": DOTA_GROUPS})
    app = WinPrediction(config)
    app.load_assets(None)
    loaded = load_rows(app, options.data, True)
    print(
        f"{Path(options.data).name}: {loaded.count.accepted:,} of {loaded.count.read:,} matches, {options.folds} folds"
    )
    runs = [out_of_fold(loaded.encoded, options.folds, seed) for seed in range(options.seeds)]
    minutes = [None, *range(int(runs[0]["TSSTN"].minutes.max()) + 1)]
    parts = {(name, minute): in_minute(runs[0][name], minute) for name in METHODS for minute in minutes}
    measured = {key: (games.metrics(), games.intervals()) for key, games in parts.items()}
    for metric in ("accuracy", "auc", "brier"):
        print(f"\n{metric} by minute, seed 0 (95% interval over matches)")
        print(f"{'minute':<8}{'matches':<9}" + "".join(f"{name:<30}" for name in METHODS) + "best")
        for minute in minutes:
            cells, values = [], {}
            for name in METHODS:
                games, (metrics, intervals) = parts[name, minute], measured[name, minute]
                values[name], (low, high) = metrics[metric], intervals[metric]
                cells.append(f"{values[name]:.4f} ({low:.4f} to {high:.4f})")
            best = min(values, key=values.get) if metric == "brier" else max(values, key=values.get)
            name = "all" if minute is None else str(minute)
            print(f"{name:<8}{len(games.lengths):<9}" + "".join(f"{cell:<30}" for cell in cells) + best)
    print("\nTSSTN minus each baseline over all frames, by seed (95% interval over matches)")
    for name in list(METHODS)[1:]:
        for metric in ("accuracy", "nll", "brier"):
            cells = []
            for run in runs:
                gap, low, high = difference(run["TSSTN"], run[name], metric)
                wins = (low > 0) if metric == "accuracy" else (high < 0)
                loses = (high < 0) if metric == "accuracy" else (low > 0)
                verdict = "wins" if wins else "LOSES" if loses else "no difference"
                cells.append(f"{gap:+.4f} ({low:+.4f} to {high:+.4f}) {verdict}")
            print(f"{name:<22}{metric:<10}" + "; ".join(cells))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    made, matches = verbs.add_parser("synthetic"), verbs.add_parser("dota2")
    made.add_argument("--games", type=int, default=4000)
    made.add_argument("--only", choices=["easy", "hard"])
    matches.add_argument("--data", required=True)
    matches.add_argument("--folds", type=int, default=5)
    for verb in (made, matches):
        verb.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(" ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "tf-keras", "scikit-learn")))
    (synthetic if options.verb == "synthetic" else dota2)(options)


if __name__ == "__main__":
    main()
