"""Scenes of four garments of Fashion-MNIST with captions, and labels of their regions by an image classifier.

    python benchmarks/fashion_scenes.py --data DIR --out FOLDER

A scene is 2 x 2 pictures; two of them are said in its caption, `a sneaker above a bag`. Regions are the four places:
means of 4 x 4 pixels as features, boxes, and what a small network says that commands of the product have trained on few
other pictures of the training file. FOLDER gets `captions.tsv` (a caption and the id of its scene), `regions.tfrecord`
with classes and scores, `objects.txt`, `network` (vocabulary and sizes of a small network without weights), and the
tables and pictures between. Prints how many labels are wrong, and the command that pre-trains.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from appzoo.vl_pretraining.scenes import write_network
from easytransfer.data.image_formats import read_idx
from easytransfer.data.regions import ImageRegions, write_region_records

# The names of the data set's authors (arXiv 1708.07747, table 2), each one word.
GARMENTS = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIDE, CELL, PLACES = 28, 4, 4
FEATURES = (SIDE // CELL) ** 2
# By the places of the first and the second garment of a caption, row by row: what stands between.
BETWEEN = {(0, 1): "left of", (2, 3): "left of", (0, 2): "above", (1, 3): "above"}
MAIN = "from appzoo.cli.main import main; raise SystemExit(main())"


def main() -> None:
    """Writes the scenes and labels them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--taught", type=int, default=500, help="pictures that the classifier is trained on")
    parser.add_argument("--epochs", type=int, default=10, help="of the classifier")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images, labels = (
        np.asarray(read_idx(str(options.data / f"train-{kind}.gz")))
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    if options.taught + PLACES * options.scenes > len(images):
        raise SystemExit(f"{len(images)} pictures are too few: --taught and four times --scenes are wanted of them")
    options.out.mkdir(parents=True)
    random = np.random.Generator(np.random.PCG64(options.seed))
    order = random.permutation(len(images))
    scenes = order[options.taught :][: PLACES * options.scenes].reshape(-1, PLACES)
    write_scenes(options.out, images, labels, scenes, random)
    write_pictures(options.out / "taught.csv", images, labels, [(0, 0, i) for i in order[: options.taught].tolist()])
    places = [(n, place, i) for n, scene in enumerate(scenes.tolist()) for place, i in enumerate(scene)]
    write_pictures(options.out / "garments.csv", images, labels, places)
    print(json.dumps(label(options.out, options.epochs, options.seed)))
    print(pretraining(options.out))


def write_scenes(
    folder: Path, images: np.ndarray, labels: np.ndarray, scenes: np.ndarray, random: np.random.Generator
) -> None:
    """Writes captions, regions without classes, names and the small network.

    Args:
        folder: Gets the files.
        images: uint8 [pictures, 28, 28].
        labels: [pictures].
        scenes: Numbers of the pictures of each scene, [scenes, 4].
        random: Chooses what captions say.
    """
    pairs = list(BETWEEN)
    with open(folder / "captions.tsv", "w", encoding="utf-8") as file:
        for number, scene in enumerate(scenes):
            pair = pairs[int(random.integers(len(pairs)))]
            first, second = (GARMENTS[labels[scene[place]]] for place in pair)
            file.write(f"a {first} {BETWEEN[pair]} a {second}\t{number}\n")
    corners = np.array([[x, y, x + 0.5, y + 0.5] for y in (0, 0.5) for x in (0, 0.5)], np.float32)

    def regions() -> Iterator[tuple[str, ImageRegions]]:
        for number, scene in enumerate(scenes):
            yield str(number), ImageRegions(features_of(images[scene]), corners, size=(2 * SIDE, 2 * SIDE))

    write_region_records(folder / "unlabelled.tfrecord", regions())
    (folder / "objects.txt").write_text("".join(f"{name}\n" for name in GARMENTS), encoding="utf-8")
    write_network(folder / "network", [*GARMENTS, "left", "of", "above"], patch_feature_size=FEATURES)


def features_of(pictures: np.ndarray) -> np.ndarray:
    """Returns the mean of each 4 x 4 pixels from 0 to 1: float32 [pictures, 49] of uint8 [pictures, 28, 28]."""
    cells = pictures.reshape(-1, SIDE // CELL, CELL, SIDE // CELL, CELL).astype(np.float32)
    return cells.mean(axis=(2, 4)).reshape(len(pictures), FEATURES) / 255


def write_pictures(path: Path, images: np.ndarray, labels: np.ndarray, rows: Sequence[tuple[int, int, int]]) -> None:
    """Writes a table of pictures with scene, place and true class, and the pictures beside it.

    Args:
        path: The table.
        images: uint8 [pictures, 28, 28].
        labels: [pictures].
        rows: Scene, place and number of the picture.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["scene", "place", "image", "label"])
        for scene, place, number in rows:
            name = f"{folder.name}/{number}.png"
            Image.fromarray(images[number]).save(path.parent / name)
            writer.writerow([scene, place, name, GARMENTS[labels[number]]])


def label(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Trains the classifier, lets it see all places of scenes, and returns what `label_regions` tells."""
    run, found = folder / "classifier", folder / "predicted.csv"
    settings = {
        "model.network": "resnet8_cifar", "model.image_size": SIDE, "model.channels": 1, "runtime.seed": seed,
        "train.num_epochs": epochs, "train.batch_size": 32, "train.export_best_checkpoint": "false",
    }  # fmt: skip
    product(
        "train", "--modelName=image_classify", f"--inputTable={folder / 'taught.csv'}", f"--checkpointDir={run}",
        *(f"--set={name}={value}" for name, value in settings.items()),
    )  # fmt: skip
    product(
        "predict", f"--checkpointPath={run}", f"--inputTable={folder / 'garments.csv'}", f"--outputTable={found}",
        "--appendCols=scene,place,label",
    )  # fmt: skip
    told = product(
        "label_regions", f"--regions={folder / 'unlabelled.tfrecord'}", f"--inputTable={found}",
        f"--objectNames={folder / 'objects.txt'}", f"--output={folder / 'regions.tfrecord'}",
        "--imageColumn=scene", "--regionColumn=place", "--trueColumn=label",
    )  # fmt: skip
    return json.loads(told)


def pretraining(folder: Path) -> str:
    """Returns the command that pre-trains on the scenes."""
    return (
        f"easy_transfer_app train --modelName=vl_pretraining_lamp --inputTable={folder / 'captions.tsv'}"
        f" --inputSchema=text:str:1,image:str:1 --checkpointDir={folder / 'lamp'} --set=data.image_column=image"
        f" --set=model.region_source=records --set=data.region_file={folder / 'regions.tfrecord'}"
        f" --set=data.object_names={folder / 'objects.txt'}"
        f" --set=model.pretrain_model_name_or_path={folder / 'network'} --set=model.from_scratch=true"
        " --set=data.sequence_length=10 --set=model.label_slots=4 --set=model.label_pieces=9"
    )


def product(verb: str, *words: str) -> str:
    """Runs a command of the product and returns what it prints."""
    command = [sys.executable, "-c", MAIN, verb, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
