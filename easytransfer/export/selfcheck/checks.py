"""Runs the checks of an export in order and stops at the first that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ...savedmodel.array_json import decode_array, take_rows
from ...savedmodel.calling import Caller, eager_callers, session_callers
from ...savedmodel.failure import CheckFailed
from ...savedmodel.graph import load_needed_operators, read_saved_model, text_libraries
from ...savedmodel.manifest import read_manifest
from . import c_loader
from .behaviour import check_command, check_outputs
from .contract import check_signatures
from .layout import check_layout
from .operators import check_operators
from .requests import check_requests
from .server_files import check_server_files

LATENCY_BATCHES = (1, 32)
# Median of this many calls, or as many as fit into the seconds.
LATENCY_CALLS, LATENCY_SECONDS = 7, 2.0


class SelfCheck:
    """All checks of one version folder.

    Args:
        folder: The version folder.
        staged: True before it is renamed to its version number and listed in the configuration files.
    """

    def __init__(self, folder: Path, staged: bool = False) -> None:
        self.folder, self.staged = folder.resolve(), staged

    def run(self) -> dict[str, Any]:
        """Returns `{"ok", "checks": [{"name", "ok", "detail", "seconds"}], "latency_ms"}`."""
        results: list[dict[str, Any]] = []
        for name, check in self.checks().items():
            start = time.perf_counter()
            try:
                detail, ok = check(), True
            except CheckFailed as failure:
                detail, ok = str(failure), False
            except Exception as error:  # whatever TensorFlow raises on a broken model is a finding, not a crash
                detail, ok = f"{type(error).__name__}: {str(error)[:2000]}", False
            seconds = round(time.perf_counter() - start, 3)
            results.append({"name": name, "ok": ok, "detail": detail, "seconds": seconds})
            if not ok:
                break
        report: dict[str, Any] = {"ok": all(result["ok"] for result in results), "checks": results}
        if report["ok"]:
            report["latency_ms"] = self.latency()
        return report

    def checks(self) -> dict[str, Callable[[], str]]:
        """Returns the checks by name, in the order they run."""
        return {
            "layout": self._layout,
            "signatures": self._signatures,
            "operators": lambda: check_operators(read_saved_model(self.folder), self.folder),
            "outputs": lambda: check_outputs(self._callers(), read_manifest(self.folder)),
            "session": self._session,
            "saved_model_cli": lambda: check_command(self.folder, read_manifest(self.folder)),
            "warmup": lambda: check_requests(self.folder, self._callers(), read_manifest(self.folder)),
            "server_files": self._server_files,
            "c_api": self._c_api,
        }

    def latency(self) -> dict[str, float]:
        """Returns the median milliseconds of `serving_default` by batch size, on the sample rows."""
        samples = read_manifest(self.folder)["samples"]["serving_default"]["inputs"]
        inputs = {key: decode_array(value) for key, value in samples.items()}
        return {str(rows): self._median_ms(take_rows(inputs, rows)) for rows in LATENCY_BATCHES}

    def _median_ms(self, inputs: dict[str, np.ndarray]) -> float:
        # The checks have run this signature already, so the first call is as fast as the others.
        call, spent = self._callers()["serving_default"], []
        while len(spent) < LATENCY_CALLS and sum(spent) < LATENCY_SECONDS:
            start = time.perf_counter()
            call(inputs)
            spent.append(time.perf_counter() - start)
        return round(1000 * float(np.median(spent)), 3)

    def _callers(self) -> dict[str, Caller]:
        if not hasattr(self, "_loaded"):
            self._loaded = eager_callers(self.folder)
        return self._loaded

    def _layout(self) -> str:
        check_layout(self.folder, self.staged)
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return f"{size} bytes"

    def _signatures(self) -> str:
        return ", ".join(sorted(check_signatures(read_saved_model(self.folder), read_manifest(self.folder))))

    def _session(self) -> str:
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            callers = session_callers(session, self.folder)
            return check_outputs(callers, read_manifest(self.folder), hard_texts=False)

    def _server_files(self) -> str:
        if self.staged:
            return "written when the version is published"
        return check_server_files(self.folder.parent.parent, read_manifest(self.folder).get("name"))

    def _c_api(self) -> str:
        libraries = text_libraries() if load_needed_operators(read_saved_model(self.folder)) else []
        command = [sys.executable, c_loader.__file__, str(Path(tf.__file__).parent), str(self.folder), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise CheckFailed(f"TF_LoadSessionFromSavedModel: {done.stderr.strip().splitlines()[-1:]}")
        return f"loaded with {len(libraries)} libraries of tf.Text"
