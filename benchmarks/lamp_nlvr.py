"""Sentences that people wrote about pictures of shapes (NLVR): what pre-training with labels of regions is good for.

    python benchmarks/lamp_nlvr.py --data DIR --log results/lamp_nlvr.jsonl
    python benchmarks/lamp_nlvr.py --log results/lamp_nlvr.jsonl --table

DIR has `dev.jsonl`, `test.jsonl` and `hidden.jsonl` of NLVR with the objects of each picture listed. Rows of dev and
test are trained on, hidden is scored once, with the weights of the last step; nothing is chosen by results. A picture
becomes regions, one an object: a vector of its shape, colour and size with noise, its box, and the classes of a
detector that draws 15 % of the shapes and 25 % of the colours anew. Arms:

- scratch: fine-tuning from random weights;
- v-l: pre-training on the true sentences of the training rows, without labels, then fine-tuning;
- lamp: the same with the labels' texts and tasks;
- second: lamp, then the same tasks on the pictures and sentences of the fine-tuning rows, then fine-tuning.

Everything is done by commands of the product. Finished runs are in the log and not repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sides import mean_and_spread, print_table

from easytransfer.data.regions import ImageRegions, write_region_records

SHAPES, COLOURS, SIZES = ("square", "circle", "triangle"), ("yellow", "black", "blue"), (10, 20, 30)
COLOUR_OF = {"yellow": 0, "black": 1, "#0099ff": 2}
# Three boxes of 100 x 100 pixels with 50 between them.
HEIGHT, WIDTH, STEP = 100, 400, 150
FEATURE_SIZE, MOST_OBJECTS, NOISE = 24, 20, 0.5
WRONG_SHAPE, WRONG_COLOUR, CONFIDENCE = 0.15, 0.25, 0.9
SIZES_OF_NETWORK = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
DROPOUT, DEVIATION = 0.1, 0.1
WORDS, ALL = 32, "all"
ROWS, ARMS = ("200", "500", ALL), ("scratch", "v-l", "lamp", "second")
# Steps of 32 rows.
FINE_TUNING, PRETRAINING, SECOND = 1500, 3000, 600


def regions_of(
    boxes: list[list[dict[str, Any]]], random: np.random.Generator, vectors: list[np.ndarray]
) -> ImageRegions:
    """Returns the objects of a picture as regions.

    Args:
        boxes: The three lists of objects.
        random: Noise, and the mistakes of the detector.
        vectors: Of shapes, colours and sizes, each [kinds, FEATURE_SIZE].
    """
    objects = [(number, each) for number, box in enumerate(boxes) for each in box]
    kinds = np.array([
        [SHAPES.index(each["type"]), COLOUR_OF[each["color"].lower()], SIZES.index(each["size"])] for _, each in objects
    ])  # fmt: skip
    features = sum(table[kinds[:, i]] for i, table in enumerate(vectors))
    corners = np.array([[each["x_loc"] + STEP * number, each["y_loc"]] for number, each in objects], np.float64)
    ends = corners + np.array([[each["size"]] for _, each in objects])
    found = kinds[:, :2].copy()
    for column, (share, names) in enumerate(((WRONG_SHAPE, SHAPES), (WRONG_COLOUR, COLOURS))):
        redrawn = random.uniform(size=len(objects)) < share
        found[redrawn, column] = random.integers(len(names), size=int(redrawn.sum()))
    confidence = np.full(len(objects), CONFIDENCE, np.float32)
    return ImageRegions(
        features + NOISE * random.normal(size=features.shape),
        np.concatenate([corners, ends], axis=1) / [WIDTH, HEIGHT, WIDTH, HEIGHT],
        found[:, 0], confidence, found[:, 1], confidence, (HEIGHT, WIDTH),
    )  # fmt: skip


def write_data(data: Path, folder: Path) -> dict[str, Any]:
    """Writes regions, tables of rows (`train-...`, of them the true ones as `true-...`, `hidden`) and names of classes.

    Returns:
        What was counted: rows, and how often the detector is right.
    """
    random = np.random.Generator(np.random.PCG64(0))
    vectors = [random.normal(size=[len(names), FEATURE_SIZE]) for names in (SHAPES, COLOURS, SIZES)]
    tables: dict[str, list[dict[str, str]]] = {"train": [], "hidden": []}
    right: Counter[str] = Counter()

    def images() -> Iterator[tuple[str, ImageRegions]]:
        for part in ("dev", "test", "hidden"):
            for line in (data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                image = f"{part}-{row['identifier']}"
                regions = regions_of(row["structured_rep"], random, vectors)
                true = [each for box in row["structured_rep"] for each in box]
                right["regions"] += len(true)
                kinds = np.array([(SHAPES.index(each["type"]), COLOUR_OF[each["color"].lower()]) for each in true])
                right["shape"] += int((regions.object_id == kinds[:, 0]).sum())
                right["colour"] += int((regions.attribute_id == kinds[:, 1]).sum())
                # Sentences are numbered through all parts; rows of one sentence are in one part.
                table = {"identifier": row["identifier"], "text": row["sentence"], "image_id": image}
                tables["hidden" if part == "hidden" else "train"].append({**table, "label": row["label"]})
                yield image, regions

    write_region_records(folder / "regions.tfrecord", images())
    # Sentences in a random order, all rows of one together: the first rows are those of fewer sentences.
    sentences = list(dict.fromkeys(row["identifier"].split("-")[0] for row in tables["train"]))
    place = dict(zip(sentences, random.permutation(len(sentences)).tolist(), strict=True))
    tables["train"].sort(key=lambda row: place[row["identifier"].split("-")[0]])
    write_table(folder / "hidden.jsonl", tables["hidden"])
    for rows in ROWS:
        some = tables["train"] if rows == ALL else tables["train"][: int(rows)]
        write_table(folder / f"train-{rows}.jsonl", some)
        write_table(folder / f"true-{rows}.jsonl", [row for row in some if row["label"] == "true"])
    for name, names in (("objects", SHAPES), ("attributes", COLOURS)):
        (folder / f"{name}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    write_network(folder / "network", [row["text"] for row in tables["train"]])
    shares = {f"{name} right": round(right[name] / right["regions"], 4) for name in ("shape", "colour")}
    return {"train": len(tables["train"]), "hidden": len(tables["hidden"]), "regions": right["regions"], **shares}


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_network(folder: Path, texts: list[str]) -> None:
    """Writes sizes of a small BERT, and a vocabulary: words that stand in two texts, those of labels, and letters."""
    words = Counter(word for text in texts for word in set(re.findall(r"[a-z]+|[0-9]|[^a-z0-9\s]", text.lower())))
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    known = [word for word, count in sorted(words.items()) if count > 1]
    pieces = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SHAPES, *COLOURS, *letters, *known]))
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = {"model_type": "bert", "vocab_size": len(pieces), "max_position_embeddings": 64, **SIZES_OF_NETWORK}
    # With BERT's 0.02 so narrow a network does not begin to learn.
    config |= {"initializer_range": DEVIATION, "hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def train(name: str, folder: Path, run: Path, tables: Sequence[Path], *sets: str) -> dict[str, Any]:
    """Runs a training of the product on the first table, evaluated on the second at its end; returns what it prints."""
    fixed = {
        "data.first_sequence": "text", "data.image_column": "image_id", "data.region_file": folder / "regions.tfrecord",
        "model.region_source": "records", "model.feature_size": FEATURE_SIZE, "model.max_regions": MOST_OBJECTS,
        "data.sequence_length": WORDS, "train.batch_size": 32, "train.eval_batch_size": 200,
        "train.eval_every_steps": 10**6, "train.save_checkpoint_steps": 10**6, "train.optimizer_type": "adamw",
        "train.weight_decay_ratio": 0.01,
    }  # fmt: skip
    words = [f"--modelName={name}", f"--checkpointDir={run}", f"--inputTable={tables[0]},{tables[1]}"]
    return command(
        "train", *words, *(f"--set={key}={value}" for key, value in fixed.items()), *(f"--set={x}" for x in sets)
    )


def command(*words: str) -> dict[str, Any]:
    """Runs a command of the product and returns the line it prints."""
    code = f"import sys; from appzoo.cli.main import main; sys.exit(main({list(words)!r}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def epochs(steps: int, table: Path) -> str:
    """Returns the setting that makes a training so many steps of 32 rows long."""
    with open(table, encoding="utf-8") as file:
        return f"train.num_epochs={steps * 32 / sum(1 for _ in file):.4f}"


def started(arm: str, rows: str, seed: int, folder: Path) -> list[str]:
    """Returns the settings of a fine-tuning's start, with the pre-training before it done."""
    from_nothing = [f"model.pretrain_model_name_or_path={folder}/network", "model.from_scratch=true"]
    if arm == "scratch":
        return from_nothing
    kind = "v-l" if arm == "v-l" else "lamp"
    encoder = folder / f"{kind}-{seed}"
    if not encoder.is_dir():
        pretrained(encoder, folder, kind, ALL, seed, PRETRAINING, "1e-3", *from_nothing)
    if arm == "second":
        first, encoder = encoder, folder / f"second-{rows}-{seed}"
        start = f"model.pretrain_model_name_or_path={first}"
        pretrained(encoder, folder, kind, rows, seed, SECOND, "5e-4", start)
    return [f"model.pretrain_model_name_or_path={encoder}"]


def pretrained(target: Path, folder: Path, kind: str, rows: str, seed: int, steps: int, rate: str, *start: str) -> None:
    """Pre-trains on the true sentences among so many rows, and writes the network into the folder `target`."""
    run, table = target.with_name(f"{target.name}-run"), folder / f"true-{rows}.jsonl"
    arms = ["model.labels=none", "model.classes=false"] if kind == "v-l" else ["model.labels=tasks"]
    names = [f"data.object_names={folder}/objects.txt", f"data.attribute_names={folder}/attributes.txt"]
    length = [epochs(steps, table), f"train.learning_rate={rate}", f"runtime.seed={seed}"]
    train("vl_pretraining_lamp", folder, run, (table, folder / "true-200.jsonl"), *start, *arms, *names, *length)
    command("export", f"--checkpointPath={run}", "--exportType=convert_bert_to_hf", f"--exportDirBase={target}")


def main() -> None:
    """Runs what the log does not have, and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of NLVR")
    parser.add_argument("--log", type=Path, required=True, help="one JSON line a run")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true", help="print the table of the log and stop")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    if not options.table:
        done += run(options, {(line["arm"], line["rows"], line["seed"]) for line in done})
    table = []
    for arm in options.arms:
        for rows in options.rows:
            found = [line for line in done if (line["arm"], line["rows"]) == (arm, rows)]
            if found:
                cells = [mean_and_spread([100 * line[name] for line in found]) for name in ("accuracy", "consistency")]
                table.append((arm, rows, str(len(found)), *(f"{mean:.1f} ± {spread:.1f}" for mean, spread in cells)))
    print_table(("arm", "fine-tuning rows", "seeds", "accuracy, %", "consistency, %"), table)


def run(options: argparse.Namespace, have: set[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """Trains what is missing; appends to the log."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(json.dumps(write_data(options.data, folder)), flush=True)
        for seed in options.seeds:
            for arm in options.arms:
                for rows in options.rows:
                    if (arm, rows, seed) in have:
                        continue
                    begin = time.monotonic()
                    table, tuned = folder / f"train-{rows}.jsonl", folder / f"{arm}-{rows}-{seed}-tuned"
                    sets = [*started(arm, rows, seed, folder), f"runtime.seed={seed}", epochs(FINE_TUNING, table)]
                    sets += ["train.learning_rate=1e-3", "data.identifier_name=identifier"]
                    result = train("visual_reasoning", folder, tuned, (table, folder / "hidden.jsonl"), *sets)
                    line = {"arm": arm, "rows": rows, "seed": seed, **result["metrics"]}
                    line["seconds"] = round(time.monotonic() - begin)
                    with open(options.log, "a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(json.dumps(line), flush=True)
                    found.append(line)
    return found


if __name__ == "__main__":
    main()
