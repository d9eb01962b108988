"""The page to try a model: one file without outside resources, under a policy that lets it run nothing else."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from easytransfer.run.page import source_hash
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.manifest import read_manifest

# Base64 of a PNG file begins so.
_PNG = "iVBORw0KGgo"
_HTML = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def _digests(tag: str) -> str:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", _HTML, re.DOTALL)
    return " ".join(map(source_hash, parts))


POLICY = (
    f"default-src 'none'; script-src {_digests('script')}; style-src {_digests('style')}; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def answer(request: Request) -> Response:
    """Returns the page."""
    return Response(_HTML, media_type="text/html", headers=HEADERS)


def model_facts(folder: Path) -> dict[str, Any]:
    """Returns what an export says of itself: all of it optional, nothing for a SavedModel without `export.json`.

    `model` and `run` are the names of application and training, `exported` is the day of the export, `labels` has the
    names of the classes, and `examples`, by signature, texts and images of a row that the export was checked with: rows
    of the application, never of a table.
    """
    try:
        manifest = read_manifest(folder)
    except CheckFailed:
        return {}
    config = manifest.get("config")
    config = config if isinstance(config, dict) else {}
    examples = {}
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # a file of somebody else
        examples = {name: _example(sample) for name, sample in manifest["samples"].items()}
    found = {
        "model": config.get("model_name"),
        "run": Path(str(config.get("checkpoint_dir") or "")).name,
        "exported": str(manifest.get("created") or "")[:10],
        "labels": manifest.get("labels"),
        "examples": {name: row for name, row in examples.items() if row},
    }
    return {name: value for name, value in found.items() if value}


def _example(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the first row of a sample whose inputs are all PNG files and texts with something in them."""
    inputs = sample.get("inputs", {})
    if not inputs or any(each["dtype"] != "string" or len(each["shape"]) != 1 for each in inputs.values()):
        return {}
    for row in zip(*(each["values"] for each in inputs.values()), strict=True):
        example = dict(zip(inputs, row, strict=True))
        if all(map(_is_shown, example, example.values())):
            return example
    return {}


def _is_shown(name: str, value: Any) -> bool:
    if name.endswith("_bytes"):
        return isinstance(value, dict) and str(value.get("b64")).startswith(_PNG)
    return isinstance(value, str) and bool(value.strip())
