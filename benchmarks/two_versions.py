"""Speed of two checkouts in turns: training of texts and images, prediction of a table, answers of the server.

    python benchmarks/two_versions.py OLD NEW --data DIR [--rounds 3] [--parts train predict images serving]

OLD and NEW are checkouts; every measurement runs in a process of its own with the packages of one of them, on the same
cores, and the two take turns. The ratio is that of the medians, NEW to OLD: above 1 NEW is faster. `train`: rows a
second of MiniLM on SST-2 behind the first steps. `predict`: rows a second of the job, the run being one of its own two
steps. `images`: rows a second of resnet20_cifar on random images. `serving`: answers a second to eight clients that ask
again as soon as they are answered. DIR holds train.tsv and dev.tsv with `text TAB label` (0 or 1).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from sides import SCHEMA, head, history, print_table, train_ours
from sides import run_ours as run_command

SKIP, EVERY, CLIENTS, ROWS = 20, 10, 8, 5000
PROGRAM = [sys.executable, "-c", "from appzoo.cli.main import main; raise SystemExit(main())"]


class Version:
    """One checkout.

    Args:
        checkout: Its folder.
        folder: For what it writes.
        options: Of the command line.
    """

    def __init__(self, checkout: Path, folder: Path, options: argparse.Namespace) -> None:
        self.checkout, self.folder, self.options = checkout.resolve(), folder, options
        self.environment = {"PYTHONPATH": f"{self.checkout}{os.pathsep}{self.checkout / 'benchmarks'}"}
        folder.mkdir()

    @property
    def run(self) -> Path:
        """A run of two steps with its export, made by this version."""
        run = self.folder / "run"
        if not run.exists():
            train = head(self.options.data / "train.tsv", self.folder / "train.tsv", 64)
            train_ours(train, train, run, cores=self.options.cores, epochs=1, seed=1)
        return run

    def train(self) -> float:
        """Rows a second of a training of texts."""
        rows = len((self.options.data / "train.tsv").read_text(encoding="utf-8").splitlines())
        dev = head(self.options.data / "dev.tsv", self.folder / "dev.tsv", 32)
        train_ours(
            self.options.data / "train.tsv",
            dev,
            self.folder / "trained",
            cores=self.options.cores,
            epochs=self.options.steps * 32 / rows,
            seed=1,
            log_step_count_steps=EVERY,
        )
        return rate(history(self.folder / "trained", "step"))

    def predict(self) -> float:
        """Rows a second of a prediction."""
        lines = (self.options.data / "train.tsv").read_text(encoding="utf-8").splitlines()
        table = self.folder / "table.tsv"
        table.write_text("".join(f"{line}\n" for line in (lines * 9)[: self.options.rows]), encoding="utf-8")
        columns = {"inputSchema": SCHEMA, "firstSequence": "content", "outputSchema": "predictions,probabilities"}
        files = {"checkpointPath": self.run, "inputTable": table, "outputTable": self.folder / "out.tsv"}
        found = run_command("predict", self.options.cores, **files, **columns, batchSize=32, overwrite="true")
        return float(found["rows_per_second"])

    def images(self) -> float:
        """Rows a second of a training of images."""
        data = self.folder / "images.npz"
        if not data.exists():
            random = np.random.default_rng(1)
            x, y = random.integers(0, 256, [ROWS, 32, 32, 3]).astype(np.uint8), random.integers(0, 10, ROWS)
            np.savez(data, x_train=x, y_train=y, x_test=x[:256], y_test=y[:256])
        values = {
            "model_name": "image_classify",
            "checkpoint_dir": self.folder / "images",
            "data.train_table": f"{data}#train",
            "data.eval_table": f"{data}#test",
            "model.network": "resnet20_cifar",
            "train.batch_size": 128,
            "train.num_epochs": self.options.steps * 128 / ROWS,
            "train.log_step_count_steps": EVERY,
        }
        words = [*PROGRAM, "train", "--overwrite", *(f"--set={key}={value}" for key, value in values.items())]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return rate(history(self.folder / "images", "step"))

    def serving(self) -> float:
        """Answers a second of the server."""
        export = self.run / "export"
        words = [*PROGRAM, "serve", str(export), "--restPort=0", "--grpcPort=0", "--accessLog=false"]
        texts = [line.split("\t")[0] for line in (self.options.data / "dev.tsv").read_text("utf-8").splitlines()]
        bodies = [json.dumps({"instances": [{"text": text}]}) for text in texts]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                address = urlsplit(json.loads(process.stdout.readline())["rest"])
                ask(address.hostname, address.port, bodies[:100], 2.0)
                return ask(address.hostname, address.port, bodies, self.options.seconds)
            finally:
                process.terminate()


def rate(records: list[dict[str, float]]) -> float:
    """Returns the rows a second of the whole intervals behind the first steps."""
    used = [record for record in records if record["step"] > SKIP and record["step"] % EVERY == 0]
    return sum(r["rows_per_s"] * r["step_s"] for r in used) / sum(r["step_s"] for r in used)


def ask(host: str, port: int, bodies: list[str], seconds: float) -> float:
    """Returns the answers a second to clients that ask again as soon as they are answered."""
    end = time.monotonic() + seconds

    def client(number: int) -> int:
        connection, count = HTTPConnection(host, port), 0
        while time.monotonic() < end:
            connection.request(
                "POST", "/v1/models/text_classify_bert:predict", bodies[(number + 8 * count) % len(bodies)]
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise SystemExit(f"the server answers {answer.status}: {answer.read()[:200]!r}")
            answer.read()
            count += 1
        return count

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS))) / seconds


def measured(version: Version, part: str) -> float:
    """Returns a measurement with the packages of one version."""
    before = dict(os.environ)
    os.environ.update(version.environment)
    try:
        return getattr(version, part)()
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    """Measures both versions in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs=2, type=Path, metavar="CHECKOUT", help="the old one and the new one")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["train", "predict", "images", "serving"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="of a training")
    parser.add_argument("--rows", type=int, default=20000, help="of the table that is predicted")
    parser.add_argument("--seconds", type=float, default=15.0, help="that the server is asked")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            Version(path, Path(folder) / name, options)
            for path, name in zip(options.versions, ("old", "new"), strict=True)
        ]
        rows = [
            line(part, lambda side, part=part: measured(side, part), sides, options.rounds) for part in options.parts
        ]
    print(f"{options.rounds} rounds in turns, {options.cores} cores\n")
    print_table(["part", "old", "new", "ratio", "ratios of the rounds"], rows)


def line(part: str, measure: Callable[[Version], float], sides: list[Version], rounds: int) -> list[str]:
    """Returns one line of the table; the order within a round changes, since the speed of a machine drifts."""
    found: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            found[which].append(measure(sides[which]))
    old, new = (statistics.median(values) for values in found)
    each = ", ".join(f"{b / a:.2f}" for a, b in zip(*found, strict=True))
    return [part, f"{old:.1f}", f"{new:.1f}", f"{new / old:.2f}", each]


if __name__ == "__main__":
    main()
