"""One fuzz case: the target returns or raises EasyTransferError, in time, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from time_limit import within

from easytransfer.errors import EasyTransferError

# Cases take milliseconds; what takes this long hangs.
SECONDS = 20
# A message is read by people, whatever the input was.
MOST_MESSAGE = 20_000
_FILE_NAME = re.compile(r"([\w-][\w.-]{0,60}/)*[\w-][\w.-]{0,60}", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A function that reads what somebody else wrote.

    Attributes:
        name: What it reads.
        inputs: What it is fed.
        run: Takes an input and the case's folder; writes the files it needs with `Folder.put`.
        heavy: Whether it needs TensorFlow, so that fewer cases fit into the default run.
        prepare: Called before each case, outside of its time; takes long at most once.
        apart: Whether a case could end the process, so that tests run it in another one.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    run: Callable[[Any, Folder], None]
    heavy: bool = False
    prepare: Callable[[], object] = bool
    apart: bool = False


class NoCase(Exception):
    """What was drawn is no input of the target."""


class Folder:
    """The folder of one case; knows which files were put there, so that others are seen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.expected: set[str] = set()

    def put(self, name: str, content: bytes | str) -> Path:
        """Writes an input file and returns its path."""
        if not _FILE_NAME.fullmatch(name):
            raise NoCase(name)  # a mutated name is no input of the target
        path = self.path / name
        if "/" in name:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        self.expected.add(str(path))
        return path

    def allow(self, folder: Path) -> None:
        """Says that files may be written below `folder`."""
        folder.mkdir()
        self.expected.add(str(folder))

    def left(self) -> list[str]:
        """Files that nobody expected."""
        found = []
        for place, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if os.path.join(place, name) not in self.expected]
            paths = (os.path.join(place, name) for name in names)
            found += [os.path.relpath(path, self.path) for path in paths if path not in self.expected]
        return found


def check(target: Target, value: Any, scratch: Path) -> None:
    """Runs one case.

    Raises:
        AssertionError: A message of no use, or files left behind.
        Exception: Whatever the target raised beside EasyTransferError, TimeoutError when it hangs.
    """
    target.prepare()
    folder = Folder(scratch / "case")
    folder.path.mkdir()
    begin = time.monotonic()
    try:
        with within(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.run(value, folder)
    except NoCase:
        pass
    except EasyTransferError as error:
        assert 0 < len(str(error)) < MOST_MESSAGE, f"a message of {len(str(error))} characters"
    finally:
        left = folder.left()
        shutil.rmtree(folder.path)
    if time.monotonic() - begin > SECONDS:
        raise TimeoutError("not done in time, and the target caught the alarm")  # it is an OSError
    assert left == [], f"left behind: {left}"
