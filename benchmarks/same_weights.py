"""Trains every smoke configuration with two checkouts: score of each, and whether the weights are the same.

    python benchmarks/same_weights.py OLD NEW [--applications text_classify image_classify] [--set KEY=VALUE]

Deterministic, one seed, in processes of their own; weights are compared by the hash of the arrays of the last
checkpoint, whatever their names. A run that another one needs is trained first, with the same checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file
from sides import print_table

PROGRAM = [sys.executable, "-c", "from appzoo.cli.main import main; raise SystemExit(main())"]
_NEEDS = re.compile(r"^# Needs: (\S+) = the run of (\S+)$", re.MULTILINE)
_GOAL = re.compile(r"^# Reaches: (\w+) ", re.MULTILINE)


def trained(checkout: Path, config: str, folder: Path, settings: list[str]) -> Path:
    """Trains a smoke configuration of a checkout, unless it was; returns the run folder."""
    run = folder / config.replace("/", "_")
    if (run / "report.json").exists():
        return run
    text = (checkout / config).read_text(encoding="utf-8")
    needed = [f"{key}={trained(checkout, other, folder, settings)}" for key, other in _NEEDS.findall(text)]
    chosen = [f"checkpoint_dir={run}", "runtime.deterministic=true", *needed, *settings]
    command = [*PROGRAM, "train", f"--config={config}", *(f"--set={each}" for each in chosen)]
    environment = os.environ | {"PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {config} failed:\n{done.stderr[-2000:]}")
    return run


def weights_hash(run: Path) -> str:
    """Returns the hash of the arrays of the last checkpoint, in an order that names do not decide."""
    last = json.loads((run / "checkpoint.json").read_text(encoding="utf-8"))["last"]
    arrays = load_file(run / last / "weights.safetensors").values()
    hashes = sorted(hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest() for array in arrays)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def line(checkouts: list[Path], config: str, folder: Path, settings: list[str]) -> list[str]:
    """Trains one configuration with both checkouts; returns a line of the table."""
    runs = [trained(each, config, folder / str(i), settings) for i, each in enumerate(checkouts)]
    metric = _GOAL.search((checkouts[1] / config).read_text(encoding="utf-8"))[1]
    scores = [json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["best"][metric] for run in runs]
    old, new = map(weights_hash, runs)
    name = config.removeprefix("appzoo/").replace("/configs/", ": ").removesuffix(".yaml")
    return [name, metric, *(f"{score:.4f}" for score in scores), old, new, "yes" if old == new else "no"]


def main() -> None:
    """Trains all configurations that both checkouts have and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs=2, type=Path, metavar="CHECKOUT", help="the old one and the new one")
    parser.add_argument("--applications", nargs="*", help="folders of appzoo; default: all that both have")
    parser.add_argument("--set", action="append", default=[], help="a setting of all trainings, such as a weight decay")
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.versions]
    found = [{str(p.relative_to(each)) for p in each.glob("appzoo/*/configs/smoke*.yaml")} for each in checkouts]
    wanted = sorted(found[0] & found[1])
    if options.applications:
        wanted = [config for config in wanted if config.split("/")[1] in options.applications]
    with tempfile.TemporaryDirectory() as folder:
        rows = [line(checkouts, config, Path(folder), options.set) for config in wanted]
    print_table(["configuration", "metric", "old", "new", "old weights", "new weights", "same"], rows)


if __name__ == "__main__":
    main()
