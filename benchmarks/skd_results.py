"""Spherical distillation beside plain distillation and plain training: Fashion-MNIST, a teacher much larger.

    python benchmarks/skd_results.py [--data DIR] [--seeds 5] [--temperatures 1 4 16] [--log FILE]

One teacher and every student train on the same `--rows` images of the training file, without augmentation, so the
teacher sees each image once (`kd_teacher_logits=cached`). Another `--validation` images of the training file choose the
temperature of each method; the test file is read once per finished student, with the weights of the last epoch, and
decides nothing. Students of one seed start from the same weights and see the same batches. Every finished run is
appended to the log, and runs found there are not repeated, so the script can be stopped and started again; the teacher
stays in `--folder`.
DIR holds the four idx files of Fashion-MNIST. The sizes are meant for about 20 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
from sides import mean_and_spread, print_table, versions

METHODS = {"none": "plain training", "kd": "plain distillation", "skd_ln": "spherical distillation"}
LABELS = ",".join(str(label) for label in range(10))
SHARED = Path(os.environ.get("EZ_SHARED", Path(__file__).resolve().parents[2] / "shared"))
# A difference counts as seen when it is more than this many of its standard errors, over seeds in pairs.
CLEAR = 2.0
EVALUATION_BATCH = 500
NO_SETTINGS = ("data", "seeds", "temperatures", "folder", "log")


def load(folder: Path, rows: int, validation: int) -> dict[str, object]:
    """Returns tables by part: `train` and `validation` of the training file in a fixed random order, and `test`."""
    from easytransfer.data.encoded import EncodedTable
    from easytransfer.data.image_formats import read_idx

    def read(part: str) -> tuple[np.ndarray, np.ndarray]:
        images = read_idx(str(folder / f"{part}-images-idx3-ubyte.gz"))
        labels = read_idx(str(folder / f"{part}-labels-idx1-ubyte.gz"))
        return np.asarray(images)[..., None], np.asarray(labels).astype(np.int32)

    def table(images: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> EncodedTable:
        return EncodedTable({"image": images[chosen], "label_id": labels[chosen]})

    images, labels = read("train")
    order = np.random.default_rng(0).permutation(len(images))
    test = read("t10k")
    return {
        "train": table(images, labels, order[:rows]),
        "validation": table(images, labels, order[len(order) - validation :]),
        "test": table(*test, np.arange(len(test[0]))),
    }


def sections(options: argparse.Namespace, seed: int, network: str, epochs: float) -> dict[str, object]:
    """Returns the configuration that teacher and students share."""
    return {
        "data": {"label_enumerate_values": LABELS},
        "model": {"network": network, "image_size": 28, "channels": 1},
        "augment": {"crop_padding": 0, "horizontal_flip": False},
        "train": {
            "num_epochs": epochs,
            "batch_size": options.batch,
            "eval_batch_size": EVALUATION_BATCH,
            "optimizer_type": options.optimizer,
            "learning_rate": options.rate,
            "weight_decay_ratio": options.decay,
        },
        "runtime": {"seed": seed},
    }


def fit(app: object, train: object, run_dir: Path | None = None) -> None:
    """Trains a prepared application to its last epoch."""
    from easytransfer.data.batches import Batches
    from easytransfer.train.trainer import Trainer

    config = app.config
    batches = Batches(train, config.train.batch_size, shuffle=True, seed=config.runtime.seed)
    Trainer(app, config.train, config.runtime, run_dir).fit(batches)


def accuracy(app: object, table: object) -> float:
    """Returns the share of right answers of the weights in memory; the teacher of a student has no part in it."""
    import tensorflow as tf

    call = tf.function(lambda images: tf.argmax(app.model({"image": images}, training=False)["logits"], axis=1))
    images, true = table.columns["image"], table.columns["label_id"]
    starts = range(0, len(images), EVALUATION_BATCH)
    guessed = np.concatenate([call(tf.constant(images[i : i + EVALUATION_BATCH])).numpy() for i in starts])
    return float((guessed == true).mean())


def beside_teacher(app: object, table: object) -> dict[str, float]:
    """Returns how confident a student is, and how close to its teacher."""
    from easytransfer.data.batches import Batches
    from easytransfer.train.inference import Inference

    found, _ = Inference(app).evaluate(Batches(table, EVALUATION_BATCH, shuffle=False).epoch(0))
    wanted = ("student_deviation", "deviation_gap", "cosine")
    return {name: round(found[name], 4) for name in wanted if name in found}


def train_teacher(folder: Path, tables: dict[str, object], options: argparse.Namespace) -> dict[str, object]:
    """Trains the teacher into `folder`, or goes on where an earlier start was stopped."""
    from appzoo.image_classify.app import ImageClassify
    from appzoo.image_classify.config import ImageClassifyConfig

    begin = time.monotonic()
    app = ImageClassify(ImageClassifyConfig(**sections(options, 0, options.teacher, options.teacher_epochs)))
    app.prepare(None)
    app.fit_labels(tables["train"])
    folder.mkdir(parents=True, exist_ok=True)
    app.save_assets(folder)
    fit(app, tables["train"], folder)
    return {**both(app, tables), "parameters": parameters(app), "s": round(time.monotonic() - begin, 1)}


def train_student(
    method: str, temperature: float, seed: int, teacher: Path, tables: dict[str, object], options: argparse.Namespace
) -> dict[str, object]:
    """Trains one student and measures it."""
    from appzoo.distillation_skd.app import DistillationSkd
    from appzoo.distillation_skd.config import DistillationSkdConfig
    from easytransfer.data.encoded import EncodedTable

    begin = time.monotonic()
    distillation = {
        "teacher": str(teacher),
        "kd_method": method,
        "kd_temperature": temperature or 1.0,
        "kd_alpha_schedule": options.alpha,
        "kd_teacher_logits": "cached",
    }
    shared = sections(options, seed, options.student, options.epochs)
    app = DistillationSkd(DistillationSkdConfig(**shared, distillation=distillation))
    app.prepare(None)
    # A copy: the teacher's logits become a column of it.
    train = EncodedTable(tables["train"].columns)
    app.fit_labels(train)
    fit(app, train)
    return {
        **both(app, tables),
        **beside_teacher(app, tables["validation"]),
        "multiplier": app.multiplier,
        "parameters": parameters(app),
        "s": round(time.monotonic() - begin, 1),
    }


def both(app: object, tables: dict[str, object]) -> dict[str, float]:
    """Returns the accuracy on the validation images and on the test file."""
    return {part: accuracy(app, tables[part]) for part in ("validation", "test")}


def parameters(app: object) -> int:
    """Returns the number of trained numbers."""
    return int(sum(variable.shape.num_elements() for variable in app.model.trainable_variables))


def read_log(path: Path, settings: dict[str, object]) -> list[dict[str, object]]:
    """Returns the logged runs that were made with `settings`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if record["settings"] == settings]


def chosen(records: list[dict[str, object]], method: str, temperature: float) -> dict[int, dict[str, object]]:
    """Returns the runs of one method and temperature by seed."""
    return {r["seed"]: r for r in records if (r["method"], r["temperature"]) == (method, temperature)}


def plan(options: argparse.Namespace) -> list[tuple[str, float]]:
    """Returns the methods with their temperatures; plain training has none, written as 0."""
    return [(m, t) for m in METHODS for t in ([0.0] if m == "none" else options.temperatures)]


def best_temperature(records: list[dict[str, object]], method: str, temperatures: list[float]) -> float:
    """Returns the temperature with the highest mean accuracy on the validation images."""
    return max(
        temperatures, key=lambda t: statistics.fmean(r["validation"] for r in chosen(records, method, t).values())
    )


def claim(records: list[dict[str, object]], better: tuple[str, float], worse: tuple[str, float]) -> str:
    """Returns a sentence that says whether `better` beats `worse` on the test file, over the seeds that both have."""
    first, second = chosen(records, *better), chosen(records, *worse)
    pairs = [100 * (first[seed]["test"] - second[seed]["test"]) for seed in sorted(first.keys() & second.keys())]
    what = f"{METHODS[better[0]]} above {METHODS[worse[0]]}"
    if len(pairs) < 2:
        return f"{what}: not judged, {len(pairs)} seed in common"
    mean, error = statistics.fmean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5
    verdict = "seen" if mean > CLEAR * error else "not seen"
    return f"{what}: {verdict} ({mean:+.2f} points on the test file, standard error {error:.2f}, {len(pairs)} seeds)"


def report(records: list[dict[str, object]], options: argparse.Namespace) -> None:
    """Prints the table and what became of the claims."""
    rows = []
    for method, temperature in plan(options):
        mine = list(chosen(records, method, temperature).values())
        if not mine:
            continue
        cells = []
        for part in ("validation", "test"):
            mean, spread = mean_and_spread([100 * record[part] for record in mine])
            cells.append(f"{mean:.2f} ± {spread:.2f}")
        cosines = [record["cosine"] for record in mine if "cosine" in record]
        cells.append(f"{statistics.fmean(cosines):.3f}" if cosines else "-")
        seconds = statistics.fmean(record["s"] for record in mine)
        shown = f"{temperature:g}" if temperature else "-"
        rows.append([METHODS[method], shown, *cells, str(len(mine)), f"{seconds:.0f}"])
    print_table(["method", "T", "validation %", "test %", "cosine", "seeds", "s per run"], rows)
    if any(not chosen(records, *each) for each in plan(options)):
        print("\nnot all methods were run: nothing is claimed")
        return
    best = {m: (m, best_temperature(records, m, options.temperatures)) for m in ("kd", "skd_ln")} | {
        "none": ("none", 0.0)
    }
    print(f"\nchosen on the validation images: T = {best['kd'][1]:g} for kd, T = {best['skd_ln'][1]:g} for skd_ln")
    for better, worse in (("skd_ln", "kd"), ("kd", "none"), ("skd_ln", "none")):
        print(claim(records, best[better], best[worse]))
    spans = {}
    for method in ("kd", "skd_ln"):
        means = [statistics.fmean(r["test"] for r in chosen(records, method, t).values()) for t in options.temperatures]
        spans[method] = 100 * (max(means) - min(means))
    verdict = "seen" if spans["skd_ln"] < spans["kd"] else "not seen"
    shown = f"{spans['skd_ln']:.2f} against {spans['kd']:.2f} points between temperatures"
    print(f"spherical distillation depends less on the temperature: {verdict} ({shown})")


def read_options() -> argparse.Namespace:
    """Returns what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "fashion_mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 4.0, 16.0])
    parser.add_argument("--rows", type=int, default=3000, help="training images")
    parser.add_argument("--validation", type=int, default=2000, help="other images of the training file")
    parser.add_argument("--teacher", default="resnet8_w32_cifar")
    parser.add_argument("--student", default="resnet8_w4_cifar")
    parser.add_argument("--teacher-epochs", type=float, default=20)
    parser.add_argument("--epochs", type=float, default=25)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--alpha", default="constant:0.9", help="see kd_alpha_schedule")
    parser.add_argument("--folder", type=Path, default=Path("runs/skd_results"), help="where the teacher is kept")
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "results" / "skd.jsonl")
    return parser.parse_args()


def main() -> None:
    """Runs what the log lacks and prints the tables."""
    options = read_options()
    # What a run does not depend on may change from one start to the next.
    settings = {name: value for name, value in vars(options).items() if name not in NO_SETTINGS}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    tables = load(options.data, options.rows, options.validation)

    def append(method: str, temperature: float, seed: int, found: dict[str, object]) -> None:
        run = {"method": method, "temperature": temperature, "seed": seed}
        with options.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**run, "settings": settings, "versions": versions(), **found}) + "\n")
        print(f"{method}, T = {temperature:g}, seed {seed}: {found}", flush=True)

    of_student = ("validation", "student", "epochs", "alpha")
    teacher = options.folder / "-".join(str(value) for name, value in settings.items() if name not in of_student)
    if not chosen(read_log(options.log, settings), "teacher", 0.0) or not (teacher / "checkpoint.json").is_file():
        append("teacher", 0.0, 0, train_teacher(teacher, tables, options))
    # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
    for seed in range(1, options.seeds + 1):
        for method, temperature in plan(options):
            if seed not in chosen(read_log(options.log, settings), method, temperature):
                append(method, temperature, seed, train_student(method, temperature, seed, teacher, tables, options))
    records = read_log(options.log, settings)
    big = chosen(records, "teacher", 0.0)[0]
    small = next(record for record in records if record["method"] == "none")
    print(f"\nteacher: {big['parameters']:,} parameters, {100 * big['test']:.2f} % of the test file; ", end="")
    print(f"students: {small['parameters']:,} parameters\n")
    report(records, options)


if __name__ == "__main__":
    main()
