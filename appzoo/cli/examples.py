"""The verb `examples`: the sample tables and configurations, from a checkout or from an installed wheel."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import appzoo
from easytransfer.config.parser import Parser
from easytransfer.errors import ConfigError, ResourceError
from easytransfer.run.log import say

SMOKE = "appzoo/text_classify/configs/smoke.yaml"


def examples(arguments: Sequence[str]) -> dict[str, Any]:
    """Writes `examples/` and `appzoo/*/configs/` into a folder, where the documented commands then run as they stand.

    Raises:
        ConfigError: They are there already.
        ResourceError: This installation has no sample tables, or the folder cannot be written.
    """
    parser = Parser(
        prog="easy_transfer_app examples", description="Write the sample tables and configurations into a folder."
    )
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="where to; default this folder")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.read(arguments)
    folder, package = options["folder"], Path(appzoo.__file__).parent
    sources = {folder / "examples": sample_folder()}
    sources |= {folder / "appzoo" / path.parent.name / "configs": path for path in sorted(package.glob("*/configs"))}
    there = [target for target in sources if target.exists()]
    if there and not options["overwrite"]:
        raise ConfigError(f"{there[0]} exists", fix="give another folder, or replace what is there with --overwrite")
    ignored = shutil.ignore_patterns("__pycache__")
    try:
        for target, source in sources.items():
            if target.resolve() != source.resolve():
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
    except OSError as error:
        raise ResourceError(f"cannot write {error.filename}: {error.strerror}", fix="give another folder") from error
    say(f"next, in {folder}: easy_transfer_app train --config {SMOKE}")
    return {"folder": str(folder), "examples": sorted(path.name for path in sample_folder().iterdir() if path.is_dir())}


def sample_folder() -> Path:
    """Returns the folder of the sample tables: that of the checkout, or the copy in an installed package.

    Raises:
        ResourceError: There is none.
    """
    package = Path(appzoo.__file__).parent
    found = next((path for path in (package / "examples", package.parent / "examples") if path.is_dir()), None)
    if found is None:
        raise ResourceError("this installation has no sample tables", fix="use a checkout of EasyTransfer")
    return found
