"""The tests check the first export of a kind as users' exports are checked, later ones of it without running them.

All checks of an export take some ten seconds of a core: a new process, three ways to load the model, its answers. The
product always makes them. A test whose subject they are is marked `every_check`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of `SelfCheck.checks`: those that read files only.
READING = ("layout", "signatures", "operators")


class ChecksOfOneKind:
    """Takes the place of `easytransfer.export.validate.validate`.

    Args:
        validate: The function that makes all checks in a new process.

    Attributes:
        folder: Where the kinds are noted that passed them; the processes of one test run share it. None: check all.
        every: Whether the running test asks for all checks.
    """

    def __init__(self, validate: Callable[..., dict[str, Any]]) -> None:
        self.validate, self.folder, self.every = validate, None, False

    def __call__(self, folder: Path, *, staged: bool = False) -> dict[str, Any]:
        """Returns the report of all checks or, of an export that is about to be published, of a known kind, of some."""
        if not staged or self.every or self.folder is None:
            return self.validate(folder, staged=staged)
        note = self.folder / f"export-{kind_of(folder)}"
        if note.exists():
            return reading_checks(folder)
        report = self.validate(folder, staged=True)
        if report["ok"]:
            note.touch()
        return report


def kind_of(folder: Path) -> str:
    """Returns a digest of what a caller meets: names, types and axes of the signatures, and whether XLA compiles them.

    Two exports of one kind may differ in their network. That each answers like its own model, under both loaders, is
    compared by tests of the applications (`test_contract.py`, `test_toy_applications.py`), not by these checks alone.
    """
    from easytransfer.savedmodel.graph import graph_float_types, graph_signatures, read_saved_model

    proto = read_saved_model(folder)
    signatures = graph_signatures(proto.meta_graphs[0])
    for signature in signatures.values():
        for side in signature.values():
            for key, entry in side.items():
                side[key] = [entry["dtype"], [axis is None for axis in entry["shape"] or ()]]
    compiled = b"_XlaMustCompile" in proto.SerializeToString()
    content = [signatures, graph_float_types(proto), compiled]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def reading_checks(folder: Path) -> dict[str, Any]:
    """Returns a report like that of `validate`, of `READING` alone and without latencies, which nobody measured."""
    from easytransfer.export.selfcheck.checks import SelfCheck
    from easytransfer.savedmodel.failure import CheckFailed

    results: list[dict[str, Any]] = []
    checks = SelfCheck(folder, staged=True).checks()
    for name in READING:
        try:
            detail, ok = checks[name](), True
        except CheckFailed as failure:
            detail, ok = str(failure), False
        results.append({"name": name, "ok": ok, "detail": detail, "seconds": 0.0})
        if not ok:
            break
    return {"ok": results[-1]["ok"], "checks": results, "latency_ms": {}}
