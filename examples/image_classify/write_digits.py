"""Writes scikit-learn's digits as PNG files with a table for training and one for evaluation.

python examples/image_classify/write_digits.py FOLDER
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

# Of five images, four are for training.
EVERY = 5


def main(folder: Path) -> None:
    """Writes `images/*.png`, `train.csv` and `dev.csv` into `folder`."""
    digits = load_digits()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        name = f"images/{number:04d}.png"
        # Values go from 0 to 16.
        Image.fromarray(np.minimum(image * 16, 255).astype(np.uint8)).save(folder / name)
        rows.append([name, label])
    order = np.random.default_rng(0).permutation(len(rows))
    for part, chosen in (("dev", order[::EVERY]), ("train", np.setdiff1d(order, order[::EVERY]))):
        with open(folder / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "label"], *(rows[i] for i in chosen)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
