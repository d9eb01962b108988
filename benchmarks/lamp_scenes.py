"""LAMP on drawn scenes: what pre-training with labels is worth to tasks with few rows, beside its controls.

    python benchmarks/lamp_scenes.py --out results/lamp_scenes.jsonl
    python benchmarks/lamp_scenes.py --out results/lamp_scenes.jsonl --table

2,000 scenes with captions and the words of a detector that is often wrong are pre-trained on; then the region that an
expression means (ref) or the answer to a question (vqa) is learnt from 100 or 300 rows of other scenes, without labels,
and tested on 2,000. Every training is one command of the product; a line of the log has the task, the arm, the seed,
the accuracy and the seconds. Lines that the log has are left out, so that it can be stopped and started again.
`--scale 0.1` shortens all trainings, for a check.

The protocol is that of the project's sheet on LAMP, section 9, but for three things: all words of a caption can be
hidden, not those with a content alone, and a fifth of the hidden ones is no mask; the network normalizes behind its
layers, not before; and other texts and labels are drawn from rows that are read together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from appzoo.vl_pretraining.scenes import COLOURS, OBJECTS, SHAPES, Scene, World, write_scenes

# By name: settings of the pre-training; None = there is none.
ARMS = {
    "scratch": None,
    "V-L": ["model.classes=false", "model.labels=none"],
    "V-L + classes": ["model.labels=none"],
    "LAMP": [],
}
TASKS, ROWS = ("ref", "vqa"), (100, 300)
FIRST, TUNED, TESTED = range(2000), range(10_000, 11_000), range(20_000, 22_000)
STEPS, BATCH, TASK_STEPS, TASK_BATCH = 1500, 64, 250, 32
MAIN = "from appzoo.cli.main import main; raise SystemExit(main())"
METRIC = {"ref": "accuracy", "vqa": "vqa_accuracy"}
SHORT = ["train.optimizer_type=adamw", "train.weight_decay_ratio=0.01", "train.log_step_count_steps=50"]


def main() -> None:
    """Runs what the log does not have, or prints the table of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="log, one JSON line a training")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where runs go; a temporary one by default")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--table", action="store_true", help="print the means of the log and stop")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.table:
        print(table(done))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="lamp-scenes-"))
    for seed in options.seeds:
        home = folder / str(seed)
        write_tables(home, seed)
        for arm in options.arms:
            wanted = [(task, rows) for task in options.tasks for rows in options.rows]
            known = {
                (x["task"], x["rows"]) for x in done if (x["arm"], x["seed"], x["scale"]) == (arm, seed, options.scale)
            }
            if not (wanted := [each for each in wanted if each not in known]):
                continue
            start, facts = started(home, arm, seed, options.scale)
            for task, rows in wanted:
                line = {"arm": arm, "seed": seed, "scale": options.scale, "task": task, "rows": rows}
                line |= tuned(home, arm, task, rows, start, seed, options.scale) | facts
                with open(options.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def table(lines: list[dict]) -> str:
    """Returns the accuracy of every arm as a table, a number for each seed."""
    columns = [(task, rows) for task in TASKS for rows in ROWS]
    found = ["| pre-training | " + " | ".join(f"{task}, {rows}" for task, rows in columns) + " |", "| --- " * 5 + "|"]
    for arm in ARMS:
        cells = []
        for task, rows in columns:
            chosen = sorted(
                (x["seed"], x["accuracy"]) for x in lines if (x["arm"], x["task"], x["rows"]) == (arm, task, rows)
            )
            mean = f" ({statistics.mean(x for _, x in chosen):.3f})" if len(chosen) > 1 else ""
            cells.append(" / ".join(f"{x:.3f}" for _, x in chosen) + mean if chosen else "not run")
        found.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(found)


# Tables ------------------------------------------------------------------------------------------------------


def write_tables(folder: Path, seed: int) -> None:
    """Writes scenes, captions and the rows of both tasks."""
    if (folder / "ref_test.tsv").exists():
        return
    write_scenes(folder, seed, {"captions": FIRST, "dev": range(5000, 5100), "tuned": TUNED, "tested": TESTED})
    world = World(seed)
    for part, numbers in [(str(rows), TUNED[:rows]) for rows in ROWS] + [("test", TESTED)]:
        rows: dict[str, list[str]] = {task: [] for task in TASKS}
        for number in numbers:
            random = np.random.Generator(np.random.PCG64([seed, 77, number]))
            scene = world.scene(number)
            text, box = expression(scene, random)
            rows["ref"].append(f"{text}\t{number}\t{','.join(f'{value:.6f}' for value in box)}\n")
            question, answer = asked(scene, random)
            rows["vqa"].append(f"{question}\t{number}\t{answer}\n")
        for task, lines in rows.items():
            (folder / f"{task}_{part}.tsv").write_text("".join(lines), encoding="utf-8")
    (folder / "answers.txt").write_text("".join(f"{word}\n" for word in (*COLOURS, *SHAPES)), encoding="utf-8")


def expression(scene: Scene, random: np.random.Generator) -> tuple[str, np.ndarray]:
    """Returns `the COLOUR SHAPE` and the box it means; an object like another one in shape or colour is preferred."""
    alike = [k for k in range(OBJECTS) if any(
        k != other and (scene.shapes[k] == scene.shapes[other] or scene.colours[k] == scene.colours[other])
        for other in range(OBJECTS)
    )]  # fmt: skip
    chosen = int(random.choice(alike or list(range(OBJECTS))))
    return f"the {COLOURS[scene.colours[chosen]]} {SHAPES[scene.shapes[chosen]]}", scene.boxes[chosen]


def asked(scene: Scene, random: np.random.Generator) -> tuple[str, str]:
    """Returns a question for the colour of a shape or the shape of a colour, of which there is one, and the answer."""
    found = list(questions(scene))
    # At least two of four objects have a shape of their own.
    return found[int(random.integers(len(found)))]


def questions(scene: Scene) -> Iterator[tuple[str, str]]:
    """Yields all questions that have one answer."""
    for shape, colour in zip(scene.shapes.tolist(), scene.colours.tolist(), strict=True):
        if (scene.shapes == shape).sum() == 1:
            yield f"what colour is the {SHAPES[shape]} ?", COLOURS[colour]
        if (scene.colours == colour).sum() == 1:
            yield f"what is the {COLOURS[colour]} ?", SHAPES[shape]


# Trainings ---------------------------------------------------------------------------------------------------


def started(home: Path, arm: str, seed: int, scale: float) -> tuple[list[str], dict]:
    """Pre-trains, and returns the settings with which a task starts from there, and what the log says of it."""
    if ARMS[arm] is None:
        return [f"model.pretrain_model_name_or_path={home / 'network'}", "model.from_scratch=true"], {}
    run = home / arm.replace(" ", "").lower()
    settings = [
        f"data.object_names={home / 'objects.txt'}", f"data.attribute_names={home / 'attributes.txt'}",
        f"model.pretrain_model_name_or_path={home / 'network'}", "model.from_scratch=true",
        "model.mlm_probability=0.35", "model.label_slots=4", "model.label_pieces=9",
        *SHORT, f"train.batch_size={BATCH}", f"train.num_epochs={scale * STEPS * BATCH / (3 * len(FIRST))}",
        "train.learning_rate=3e-3", f"train.eval_every_steps={STEPS}", "train.eval_batch_size=300", *ARMS[arm],
    ]  # fmt: skip
    tables = f"{home / 'captions.tsv'},{home / 'dev.tsv'}"
    seconds = trained("vl_pretraining_lamp", home, tables, "text:str:1,image:str:1", run, seed, settings)
    report = json.loads((run / "report.json").read_text())
    encoder = home / f"{run.name}-encoder"
    product(
        "export",
        f"--checkpointPath={run}",
        "--exportType=convert_bert_to_hf",
        f"--exportDirBase={encoder}",
        "--overwrite",
    )
    facts = {name: report[name] for name in ("metrics", "labels_with_other_images") if name in report}
    facts = {"pretraining": facts, "pretraining_seconds": seconds}
    return [f"model.pretrain_model_name_or_path={encoder}"], facts


def tuned(home: Path, arm: str, task: str, rows: int, start: list[str], seed: int, scale: float) -> dict:
    """Trains a task and returns its accuracy on the test."""
    run = home / f"{arm.replace(' ', '').lower()}-{task}-{rows}"
    settings = [
        *start, *SHORT, "model.dropout_rate=0", f"train.batch_size={TASK_BATCH}", "train.learning_rate=1e-3",
        f"train.num_epochs={scale * TASK_STEPS / -(-rows // TASK_BATCH)}", f"train.eval_every_steps={TASK_STEPS}",
        "train.eval_batch_size=500", "train.export_best_checkpoint=false",
    ]  # fmt: skip
    if task == "ref":
        name, schema = "referring_expression", "expression:str:1,image:str:1,target_box:float:4"
        settings.append("model.target_box_form=shares")
    else:
        name, schema = "visual_question_answering", "question:str:1,image:str:1,answers:str:1"
        settings += ["model.answer_rule=single", f"model.answer_file={home / 'answers.txt'}"]
    tables = f"{home / f'{task}_{rows}.tsv'},{home / f'{task}_test.tsv'}"
    seconds = trained(name, home, tables, schema, run, seed, settings)
    metrics = json.loads((run / "report.json").read_text())["metrics"]
    return {"accuracy": metrics[METRIC[task]], "metrics": metrics, "seconds": seconds}


def trained(name: str, home: Path, tables: str, schema: str, run: Path, seed: int, settings: list[str]) -> float:
    """Runs one training and returns its seconds."""
    common = [
        "data.image_column=image", f"data.region_file={home / 'regions.tfrecord'}", "model.region_source=records",
        f"runtime.seed={seed}", "data.sequence_length=8",
    ]  # fmt: skip
    words = [f"--modelName={name}", f"--inputTable={tables}", f"--inputSchema={schema}", f"--checkpointDir={run}"]
    begin = time.monotonic()
    product("train", *words, "--overwrite", *(f"--set={each}" for each in [*common, *settings]))
    return round(time.monotonic() - begin, 1)


def product(verb: str, *words: str) -> None:
    """Runs a command of the product."""
    command = [sys.executable, "-c", MAIN, verb, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
