"""Asks a model server what its exports were checked with, and compares: python smoke.py http://serving:8501 /models

For every model of the folder, the newest version's `assets.extra/export.json` holds sample rows and the answers of the
trained model. Prints one JSON line a model; the exit code is 1 when an answer differs or does not come.
"""

from __future__ import annotations

import json
import math
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SIGNATURE = "serving_default"
TIMEOUT_S = 30
# What rounding explains: the server may batch and vectorise otherwise than the process that wrote the samples. A share
# of the largest number of an output, as in `tolerance` of newer exports; numbers from FILL on count by their own size.
TOLERANCE, FILL = 256 * 2.0**-23, 1e6


def newest(model: Path) -> Path:
    """Returns the folder of the highest version of a model."""
    return max((path for path in model.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def nested(values: list[Any], shape: list[int]) -> list[Any]:
    """Returns flat values as lists in lists, as REST has them."""
    if len(shape) < 2:
        return values
    size = math.prod(shape[1:])
    return [nested(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


def differs(found: Any, expected: Any, allowed: float, share: float) -> bool:
    """Whether two answers are not the same: numbers beyond what is allowed, fills beyond a share, all else exactly."""
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return True
        return any(differs(*pair, allowed, share) for pair in zip(found, expected, strict=True))
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return not abs(found - expected) <= (allowed if abs(expected) < FILL else share * abs(expected))
    return found != expected


def wrong_output(found: Any, tensor: dict[str, Any], undecided: list[int], share: float) -> bool:
    """Whether an output is not the recorded one, rows left out that rounding decides."""
    expected = nested(tensor["values"], tensor["shape"])
    numbers = [abs(value) for value in tensor["values"] if isinstance(value, float) and abs(value) < FILL]
    if not isinstance(found, list) or len(found) != len(expected):
        return True
    rows = [row for row in range(len(expected)) if row not in undecided]
    pairs = ([found[row] for row in rows], [expected[row] for row in rows])
    return differs(*pairs, share * max(numbers, default=0.0), share)


def ask(address: str, model: str, version: str, inputs: dict[str, Any]) -> Any:
    """Returns the outputs by name, or the only one."""
    url = f"{address}/v1/models/{model}/versions/{version}:predict"
    body = json.dumps({"signature_name": SIGNATURE, "inputs": inputs}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        raise OSError(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from None


def check(address: str, folder: Path) -> dict[str, Any]:
    """Compares one version and returns what to print."""
    manifest = json.loads((folder / "assets.extra" / "export.json").read_text(encoding="utf-8"))
    sample, share = manifest["samples"][SIGNATURE], max(manifest.get("tolerance", 0.0), TOLERANCE)
    shares, undecided = sample.get("tolerance", {}), sample.get("undecided", {})
    inputs = {name: nested(tensor["values"], tensor["shape"]) for name, tensor in sample["inputs"].items()}
    recorded = sample["outputs"][str(len(next(iter(inputs.values()))))]
    outputs = ask(address, folder.parent.name, folder.name, inputs)
    if not isinstance(outputs, dict):
        outputs = dict.fromkeys(recorded, outputs)  # REST leaves out the name of a single output
    wrong = sorted(
        name
        for name, tensor in recorded.items()
        if wrong_output(outputs.get(name), tensor, undecided.get(name, []), shares.get(name, share))
    )
    return {"model": folder.parent.name, "version": int(folder.name), "ok": not wrong, "differing_outputs": wrong}


def main(address: str, base: Path) -> int:
    """Checks every model; returns 1 if any fails."""
    results = []
    for model in sorted({path.parents[1] for path in base.glob("*/*/saved_model.pb")}):
        try:
            results.append(check(address, newest(model)))
        except (OSError, ValueError, KeyError) as error:
            results.append({"model": model.name, "ok": False, "error": str(error)})
        print(json.dumps(results[-1]), flush=True)
    return 0 if results and all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/"), Path(sys.argv[2])))
