"""What a run was made with: versions, machine, git revision, command line, hashes of the input files."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from easytransfer.errors import EasyTransferError
from easytransfer.run.atomic import sha256
from easytransfer.run.secrets import shown_arguments
from easytransfer.version import VERSION

PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tf-models-official",
    "tensorflow-text",
    "numpy",
    "tokenizers",
    "safetensors",
    "scikit-learn",
    "pydantic",
    "horovod",
)


def environment_record(
    *,
    seed: int | None = None,
    devices: Sequence[str] = (),
    inputs: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the content of `run.json` at the start of a run.

    Args:
        seed: Seed of the run.
        devices: Names of the accelerators and processors used, as TensorFlow lists them.
        inputs: The input files, as `input_records` gives them.
    """
    return {
        "easytransfer": VERSION,
        "git": git_revision(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": list(devices),
        "seed": seed,
        "command": shown_arguments(sys.argv),
        "inputs": list(inputs),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Returns installed versions without importing the packages; absent ones are left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision(folder: str | os.PathLike[str] | None = None) -> str | None:
    """Returns the commit of the checkout this package runs from, `+changes` added if files differ from it.

    Args:
        folder: A folder of the checkout; default: where this package is.

    Returns:
        None when it does not run from a checkout, or git is not there.
    """
    root = Path(folder) if folder is not None else Path(__file__).parents[1]
    # An installed package may lie inside somebody else's checkout: it counts only if git knows this folder.
    listed = _git(root, "ls-files", "--error-unmatch", ".")
    revision = _git(root, "rev-parse", "HEAD") if listed else None
    if not revision:
        return None
    return revision + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def file_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns path, size and SHA-256 of a file, or of the names and contents of all visible files in a folder."""
    if not os.path.isdir(path):
        return {"path": os.fspath(path), "bytes": os.path.getsize(path), "sha256": sha256(path)}
    inside = {item.relative_to(path): item for item in Path(path).rglob("*") if item.is_file()}
    files = [inside[name] for name in sorted(inside) if not any(part[0] in "._" for part in name.parts)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{sha256(file)}\n".encode("utf-8", "surrogateescape"))
    size = sum(file.stat().st_size for file in files)
    return {"path": os.fspath(path), "bytes": size, "sha256": digest.hexdigest()}


def input_records(tables: Mapping[str, Iterable[str | os.PathLike[str]]]) -> list[dict[str, Any]]:
    """Returns a record of every file of every table, by which a continued run knows them again.

    Args:
        tables: The files of each table by what it is for, such as `training`; what is no file is left out.
    """
    records = functools.lru_cache(file_record)
    return [{"table": name, **records(path)} for name, files in tables.items() for path in files if Path(path).exists()]


def memory_mb() -> float:
    """Returns the resident memory of this process in megabytes (10^6 bytes)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return peak_memory_mb()


def peak_memory_mb() -> float:
    """Returns the largest resident memory this process has had, in megabytes (10^6 bytes)."""
    try:
        # What the kernel hands to getrusage begins with the peak of the program that started this one.
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024 / 1e6
    except (OSError, StopIteration):
        pass
    # macOS counts in bytes, others in 1024.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def failure_record(error: BaseException) -> dict[str, Any]:
    """Returns what went wrong; the stack trace is included only for unexpected errors."""
    expected = isinstance(error, EasyTransferError)
    record: dict[str, Any] = {
        "type": type(error).__name__,
        "error": str(error),
        "exit_code": error.exit_code if expected else 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if not expected:
        record["trace"] = "".join(traceback.format_exception(error)).splitlines()
    return record


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
