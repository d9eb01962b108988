"""Re-identification across clothes on drawn persons: AIFL beside the baseline and its controls, several seeds.

    python benchmarks/person_reid_clothes.py --out results/person_reid_clothes.jsonl
    python benchmarks/person_reid_clothes.py --out results/person_reid_clothes.jsonl --table

100 persons in one outfit each are trained on, 50 others in three outfits each are found again. Every training is one
command of the product; a line of the log has the command, the seconds and the metrics of one. Runs that the log has are
left out, so that it can be stopped and started again. `--scale 0.1` shortens all trainings, for a check.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = {"height": 64, "width": 32}
TRAIN = {
    **SIZE,
    "split": "train",
    "first_pid": 1,
    "identities": 100,
    "labelled": 100,
    "outfits": 1,
    "cameras": 3,
    "images": 4,
}
TEST = {
    **SIZE,
    "split": "test",
    "first_pid": 1001,
    "identities": 50,
    "labelled": 50,
    "outfits": 3,
    "cameras": 3,
    "images": 2,
}
STEPS, GAN_STEPS, PERSONS, IMAGES = 300, 400, 8, 4
CROPS = ["model.image_size=[64,32]", "model.crop_padding=2"]
FEATURES = [
    *CROPS,
    "model.network=tiny",
    "train.learning_rate=1e-3",
    "train.lr_milestones=[0.6,0.85]",
    "train.warmup_ratio=0",
    "train.eval_batch_size=180",
]
PLAYERS = ["gan.size=tiny", "gan.learning_rate=1e-3", "gan.critic_learning_rate=4e-4"]
# By name: application, table of the training, settings; {gan} is the run of that name with the same seed.
METHODS = {
    "gan": ("as_gan", "train", []),
    "gan, learned masks": ("as_gan", "train", ["gan.masks=learned"]),
    "gan, band": ("as_gan", "train", ["gan.masks=band"]),
    "baseline": ("baseline", "train", []),
    "baseline, twice the persons": ("baseline", "train", ["train.batch_size=64"]),
    "baseline, colour jitter": ("baseline", "train", ["model.colour_jitter=1"]),
    "aifl": ("aifl", "train", ["aifl.generator={gan}"]),
    "aifl, lambda 0": ("aifl", "train", ["aifl.generator={gan}", "aifl.invariance_weight=0"]),
    "aifl, learned masks": ("aifl", "train", ["aifl.generator={gan, learned masks}", "gan.masks=learned"]),
    "aifl, band": ("aifl", "train", ["aifl.generator={gan, band}", "gan.masks=band"]),
    "aifl, half labelled": (
        "aifl",
        "half",
        ["aifl.generator={gan}", "train.batch_size=40", "model.unlabelled_per_batch=8"],
    ),
    "aifl, half dropped": ("aifl", "half", ["aifl.generator={gan}"]),
}
METRICS = (
    "cc_map",
    "cc_rank_1",
    "sc_map",
    "map",
    "reconstruction_error",
    "embedding_error",
    "outside_change",
    "followed",
)


def main() -> None:
    """Runs what the log does not have, or prints the table of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="log, one JSON line a training")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--folder", type=Path, help="where runs go; a temporary one by default")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--table", action="store_true", help="print the means of the log and stop")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.table:
        print(table(done))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="person-reid-"))
    for seed in options.seeds:
        write_tables(folder / str(seed), seed)
        for name in options.methods:
            if any((line["method"], line["seed"], line["scale"]) == (name, seed, options.scale) for line in done):
                continue
            line = trained(folder / str(seed), name, seed, options.scale)
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def write_tables(folder: Path, seed: int) -> None:
    """Writes descriptions of the tables: all labelled, half of the persons labelled, and the test."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in (("train", TRAIN), ("half", {**TRAIN, "labelled": 50}), ("test", TEST)):
        (folder / f"{name}.persons").write_text(json.dumps({"seed": seed, **numbers}))


def trained(folder: Path, name: str, seed: int, scale: float) -> dict:
    """Trains one method and returns its line of the log."""
    application, source, settings = METHODS[name]
    runs = {other: folder / other.replace(", ", "-").replace(" ", "_") for other in METHODS}
    values = [each.format_map(runs) for each in settings]
    given = dict(each.split("=", 1) for each in values)
    images = TRAIN["identities"] * TRAIN["cameras"] * TRAIN["images"]
    if application == "as_gan":
        batch, steps = 32, GAN_STEPS
        epoch = -(-images // batch)
        form = [*CROPS, *PLAYERS]
    else:
        size = int(given.get("train.batch_size", PERSONS * IMAGES))
        batch, steps = size, STEPS
        labelled = images // 2 if source == "half" else images
        epoch = -(-labelled // (size - int(given.get("model.unlabelled_per_batch", 0))))
        form = FEATURES + (["gan.size=tiny"] if application == "aifl" else [])
    command = [
        *("easy_transfer_app", "train", f"--modelName=person_reid_{application}", f"--checkpointDir={runs[name]}"),
        *(f"--inputTable={folder}/{source}.persons,{folder}/test.persons", f"--batchSize={batch}"),
        *(f"--numEpochs={steps * scale / epoch:.6g}", f"--set=train.eval_every_steps={STEPS + GAN_STEPS}"),
        *(f"--set={each}" for each in (f"runtime.seed={seed}", *form, *values)),
    ]
    started = time.monotonic()
    code = f"import sys; from appzoo.cli.main import main; sys.exit(main({command[1:]!r}))"
    result = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    metrics = json.loads(result.stdout.splitlines()[-1])["metrics"]
    report = json.loads((runs[name] / "report.json").read_text())
    shown = {metric: round(metrics[metric], 4) for metric in METRICS if metric in metrics}
    return {
        "method": name,
        "seed": seed,
        "scale": scale,
        "seconds": round(time.monotonic() - started),
        **shown,
        **{key: round(value, 4) for key, value in report.get("apparel", {}).items()},
        "command": " ".join(command).replace(str(folder), "FOLDER"),
    }


def table(lines: list[dict]) -> str:
    """Returns the metrics of each method by seed, as Markdown."""
    rows = ["| method | seeds | CC mAP | CC rank-1 | SC mAP | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for name in METHODS:
        found = sorted((line for line in lines if line["method"] == name and "cc_map" in line), key=lambda x: x["seed"])
        if found:
            cells = [" / ".join(f"{line[key]:.3f}" for line in found) for key in ("cc_map", "cc_rank_1", "sc_map")]
            seeds = ", ".join(str(line["seed"]) for line in found)
            rows.append(
                f"| {name} | {seeds} | {' | '.join(cells)} | {statistics.mean(x['seconds'] for x in found):.0f} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
