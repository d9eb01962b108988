"""Paths as users type them: `~` stands for a home folder in every one of them."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(text: str) -> str:
    """Returns the path with a `~` or `~user` at its beginning replaced; others are returned as they are.

    Raises:
        ValueError: There is no such home folder, and no file of that name either.
    """
    if not text.startswith("~"):
        return text
    expanded = os.path.expanduser(text)
    first = text.split("/")[0]
    if expanded == text and (text == "~" or "/" in text) and not os.path.exists(first):
        raise ValueError(f"there is no home folder {first}; a folder of that name is written ./{first}")
    return expanded


def expand_homes(text: str) -> str:
    """Returns a comma list of paths with each of them expanded; see `expand_home`."""
    if "~" not in text:
        return text
    return ",".join(expand_home(part.strip()) if part.strip().startswith("~") else part for part in text.split(","))


def user_path(text: str | os.PathLike[str]) -> Path:
    """Returns the path with `~` replaced, also where there is no such user."""
    try:
        return Path(expand_home(os.fspath(text)))
    except ValueError:  # a NUL in the name of a user
        return Path(text)
