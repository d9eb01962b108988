"""Checks an export in a fresh process: `easy_transfer_app export validate FOLDER [--json]`.

The checks themselves are in the folder `selfcheck`. They run with TensorFlow alone, so that an export that needs this
package, its Keras or Python code of the training process cannot pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError

# Makes the files of this package importable under another name without running its `__init__`: `selfcheck` reaches
# `savedmodel` by relative imports, and nothing can reach the rest by the package's own name.
_START = (
    "import runpy, sys, types; sys.path.pop(0); package = sys.modules['unpacked'] = types.ModuleType('unpacked'); "
    "package.__path__ = [sys.argv.pop(1)]; runpy.run_module('unpacked.export.selfcheck', run_name='__main__')"
)
# A large model on a slow machine answers its largest batch in minutes.
TIMEOUT_SECONDS = 3600
# Variables that would make the process more than a plain TensorFlow program.
_REMOVED = ("TF_USE_LEGACY_KERAS", "PYTHONSAFEPATH", "PYTHONSTARTUP")


def validate(folder: Path, *, staged: bool = False) -> dict[str, Any]:
    """Runs all checks of one version folder in a fresh process.

    Args:
        folder: The version folder.
        staged: True before it has its version number.

    Returns:
        `ok`, `checks` (name, ok, detail, seconds each; the last one is the one that failed) and `latency_ms`.

    Raises:
        ModelError: The process died before it could report, or the folder does not exist.
    """
    if not folder.is_dir():
        raise ModelError("no such export", received=str(folder), fix="give the folder of one version")
    environment = {key: value for key, value in os.environ.items() if key not in _REMOVED}
    # The training process may hold all memory of the GPU, and servers are compared on the CPU.
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", _START, str(Path(__file__).parents[1]), str(folder.resolve())]
    try:
        done = subprocess.run(
            [*command, "staged" if staged else "published"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT_SECONDS,
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the check of {folder} did not end within {TIMEOUT_SECONDS} s") from error
    except (ValueError, IndexError) as error:
        lines = done.stderr.strip().splitlines()[-8:]
        raise ModelError(f"the check of {folder} died with exit code {done.returncode}", received=lines) from error


def failed_check(report: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the check that failed, None if none did."""
    return next((check for check in report["checks"] if not check["ok"]), None)
