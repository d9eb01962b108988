"""Spherical distillation beside plain distillation and plain training: Fashion-MNIST, a teacher much larger.

    python benchmarks/skd_results.py [--data DIR] [--seeds 5] [--temperatures 1 4 16] [--log FILE]

One teacher and every student train on the same `--rows` images of the training file, without augmentation, so the
teacher sees each image once (`kd_teacher_logits=cached`). Another `--validation` images of the training file choose the
temperature of each method; the test file is read once per finished student, with the weights of the last epoch, and
decides nothing. Students of one seed start from the same weights and see the same batches. Every finished run is
appended to the log, and runs found there are not repeated, so the script can be stopped and started again; the teacher
stays in `--folder`.
DIR holds the four idx files of Fashion-MNIST. The sizes are meant for about an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from image_sides import LABELS, SHARED, Log, accuracy, claim, fit, load, parameters
from sides import mean_and_spread, print_table

RUN = ("seed", "method", "temperature")
METHODS = {"none": "plain training", "kd": "plain distillation", "skd_ln": "spherical distillation"}
EVALUATION_BATCH = 500
NO_SETTINGS = ("data", "seeds", "temperatures", "folder", "log")


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
    app.load_assets(None)
    app.on_train_table(tables["train"])
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
    app.load_assets(None)
    # A copy: the teacher's logits become a column of it.
    train = EncodedTable(tables["train"].columns)
    app.on_train_table(train)
    fit(app, train)
    return {
        **both(app, tables),
        **beside_teacher(app, tables["validation"]),
        "multiplier": app.multiplier,
        "parameters": parameters(app),
        "s": round(time.monotonic() - begin, 1),
    }


def plan(options: argparse.Namespace) -> list[tuple[str, float]]:
    """Returns the methods with their temperatures; plain training has none, written as 0."""
    return [(m, t) for m in METHODS for t in ([0.0] if m == "none" else options.temperatures)]


def both(app: Any, tables: dict[str, Any]) -> dict[str, float]:
    """Returns the accuracy on the validation images and on the test file."""
    return {part: accuracy(app, tables[part]) for part in ("validation", "test")}


def best_temperature(log: Log, method: str, temperatures: list[float]) -> float:
    """Returns the temperature with the highest mean accuracy on the validation images."""
    return max(
        temperatures, key=lambda t: statistics.fmean(r["validation"] for r in log.runs(method=method, temperature=t))
    )


def report(log: Log, options: argparse.Namespace) -> None:
    """Prints the table and what became of the claims."""
    rows = []
    for method, temperature in plan(options):
        mine = log.runs(method=method, temperature=temperature)
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
    if any(not log.runs(method=method, temperature=temperature) for method, temperature in plan(options)):
        print("\nnot all methods were run: nothing is claimed")
        return
    best = {m: (m, best_temperature(log, m, options.temperatures)) for m in ("kd", "skd_ln")} | {"none": ("none", 0.0)}
    print(f"\nchosen on the validation images: T = {best['kd'][1]:g} for kd, T = {best['skd_ln'][1]:g} for skd_ln")
    for better, worse in (("skd_ln", "kd"), ("kd", "none"), ("skd_ln", "none")):
        sides = [
            {run["seed"]: 100 * run["test"] for run in log.runs(method=method, temperature=temperature)}
            for method, temperature in (best[better], best[worse])
        ]
        print(claim(f"{METHODS[better]} above {METHODS[worse]}", *sides, "points on the test file"))
    spans = {}
    for method in ("kd", "skd_ln"):
        means = [
            statistics.fmean(r["test"] for r in log.runs(method=method, temperature=t)) for t in options.temperatures
        ]
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
    log = Log(options.log, options, NO_SETTINGS)
    tables = load(options.data, options.rows, options.validation)
    of_student = ("validation", "student", "epochs", "alpha")
    teacher = options.folder / "-".join(str(value) for name, value in log.settings.items() if name not in of_student)
    # Seed by seed, so that a stopped script has complete rows for the seeds it reached.
    planned = [(seed, *each) for seed in range(1, options.seeds + 1) for each in plan(options)]
    missing = [run for run in planned if not log.runs(**dict(zip(RUN, run, strict=True)))]
    if missing and not (log.runs(method="teacher") and (teacher / "checkpoint.json").is_file()):
        log.add(dict(zip(RUN, (0, "teacher", 0.0), strict=True)), train_teacher(teacher, tables, options))
    for seed, method, temperature in missing:
        found = train_student(method, temperature, seed, teacher, tables, options)
        log.add(dict(zip(RUN, (seed, method, temperature), strict=True)), found)
    big, small = log.runs(method="teacher")[0], log.runs(method="none")[0]
    print(f"\nteacher: {big['parameters']:,} parameters, {100 * big['test']:.2f} % of the test file; ", end="")
    print(f"students: {small['parameters']:,} parameters\n")
    report(log, options)


if __name__ == "__main__":
    main()
