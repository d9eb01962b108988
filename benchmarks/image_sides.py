"""What the scripts on small images share: Fashion-MNIST in parts, training in this process, accuracy, the log."""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sides import versions

from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable

SHARED = Path(os.environ.get("EZ_SHARED", Path(__file__).resolve().parents[2] / "shared"))
LABELS = ",".join(str(label) for label in range(10))
# A difference counts as seen when it is more than this many of its standard errors, over seeds in pairs.
CLEAR = 2.0
_EVALUATION_BATCH = 500


def load(folder: Path, rows: int, validation: int) -> dict[str, EncodedTable]:
    """Returns tables by part: `train` and `validation` of the training file in a fixed random order, and `test`.

    Args:
        folder: Holds the four idx files of Fashion-MNIST.
        rows: Training images.
        validation: Other images of the training file.
    """
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


def fit(app: Any, train: EncodedTable, run_dir: Path | None = None) -> None:
    """Trains a prepared application to its last epoch."""
    from easytransfer.data.batches import Batches
    from easytransfer.train.trainer import Trainer

    config: JobConfig = app.config
    batches = Batches(train, config.train.batch_size, shuffle=True, seed=config.runtime.seed)
    Trainer(app, config.train, config.runtime, run_dir).fit(batches)


def accuracy(app: Any, table: EncodedTable) -> float:
    """Returns the share of right answers of the weights in memory."""
    import tensorflow as tf

    call = tf.function(lambda images: tf.argmax(app.model({"image": images}, training=False)["logits"], axis=1))
    images, true = table.columns["image"], table.columns["label_id"]
    starts = range(0, len(images), _EVALUATION_BATCH)
    guessed = np.concatenate([call(tf.constant(images[i : i + _EVALUATION_BATCH])).numpy() for i in starts])
    return float((guessed == true).mean())


def parameters(app: Any) -> int:
    """Returns the number of trained numbers."""
    return int(sum(variable.shape.num_elements() for variable in app.model.trainable_variables))


class Log:
    """Finished runs as JSON lines; runs of other settings are kept and not seen.

    Args:
        path: File, made with the first run.
        options: Those of the script.
        ignored: Options that no run depends on.
    """

    def __init__(self, path: Path, options: argparse.Namespace, ignored: tuple[str, ...]) -> None:
        self.path = path
        given = {name: value for name, value in vars(options).items() if name not in ignored}
        self.settings = json.loads(json.dumps(given, default=str))
        path.parent.mkdir(parents=True, exist_ok=True)

    def runs(self, **wanted: Any) -> list[dict[str, Any]]:
        """Returns the runs of these settings in which every given name has the given value."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        mine = (record for record in map(json.loads, lines) if record["settings"] == self.settings)
        return [record for record in mine if wanted.items() <= record.items()]

    def add(self, run: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Appends a run: what it is and what came out."""
        with self.path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**run, "settings": self.settings, "versions": versions(), **found}) + "\n")
        print(", ".join(f"{name} {value}" for name, value in run.items()) + f": {dict(found)}", flush=True)


def claim(what: str, better: Mapping[int, float], worse: Mapping[int, float], unit: str) -> str:
    """Returns a sentence that says whether one side is above another over the seeds that both have.

    Args:
        what: The claim.
        better: Values by seed of the side that should be above.
        worse: Values by seed of the other.
        unit: Of the values.
    """
    pairs = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
    if len(pairs) < 2:
        return f"{what}: not judged, {len(pairs)} seed in common"
    mean, error = statistics.fmean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5
    verdict = "seen" if mean > CLEAR * error else "not seen"
    return f"{what}: {verdict} ({mean:+.2f} {unit}, standard error {error:.2f}, {len(pairs)} seeds)"
