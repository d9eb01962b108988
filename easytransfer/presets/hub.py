"""Models of the Hugging Face hub: how they are named and where its client keeps them here. Uses no network."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.presets.safetensors_file import INDEX, WEIGHTS, shards_of
from easytransfer.run.atomic import sha256

SCHEME = "hf://"
MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
# SHA-256 of large files, Git's SHA-1 of others: what the hub announces, and what the cache names its files after.
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)
_BLOCK = 1 << 20
_LONGEST_ID, _LONGEST_REVISION = 96, 200
# Entries of a model card's heading; the heading is a few lines at the top.
_CARD_ENTRY, _CARD_BYTES = re.compile(r"^(license|language): *([\w.-]+) *$", re.MULTILINE), 1 << 14


@dataclass(frozen=True)
class HubId:
    """A repository of the hub at one of its revisions.

    Attributes:
        id: `owner/name`.
        revision: Branch, tag or commit.
        explicit: It was written with `hf://`, so that it is no folder and no name of the ModelZoo.
    """

    id: str
    revision: str = MAIN
    explicit: bool = True

    def __str__(self) -> str:
        return f"{SCHEME}{self.id}" + (f"@{self.revision}" if self.revision != MAIN else "")


def parse(text: str) -> HubId | None:
    """Returns the repository that `hf://owner/name@revision`, or the same without `hf://`, stands for.

    Args:
        text: What the user typed as a model; without `@revision` it is the branch `main`.

    Returns:
        None when the text is of another form, as names of the ModelZoo and most paths are.

    Raises:
        ModelError: It begins with `hf://` and does not go on as a repository.
    """
    explicit = text.startswith(SCHEME)
    name, at, revision = text.removeprefix(SCHEME).partition("@")
    revision = revision if at else MAIN
    if _is_id(name) and _is_revision(revision):
        return HubId(name, revision, explicit)
    if not explicit:
        return None
    raise ModelError(
        "this is no model of the Hugging Face hub",
        received=text,
        accepted="hf://owner/name or hf://owner/name@revision",
        fix="the page of the model shows owner and name; a revision is a branch, a tag or a commit",
    )


def of_origin(origin: Mapping[str, Any]) -> HubId | None:
    """Returns the repository that a known model comes from, None where it comes from elsewhere."""
    return HubId(origin["id"], origin.get("revision", MAIN)) if origin.get("kind") == "hub" else None


def _is_id(text: str) -> bool:
    # The hub has no such names, and its client joins owner and name by two dashes.
    forbidden = "--" in text or ".." in text or text.endswith((".git", "-", "."))
    return _ID.fullmatch(text) is not None and not forbidden and len(text) <= _LONGEST_ID


def _is_revision(text: str) -> bool:
    parts = text.split("/")
    plain = all(part and not part.startswith(".") for part in parts) and ".." not in text
    return _REVISION.fullmatch(text) is not None and plain and len(text) <= _LONGEST_REVISION


def cache_folder() -> Path:
    """Returns where the hub's client keeps what it downloads, by the variables that it reads."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return _expanded(folder)
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(os.environ.get("HF_HOME") or f"{general}/huggingface") / "hub"


def _expanded(folder: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(folder)))


def repository_folder(model: HubId) -> Path:
    """Returns the folder of a repository in the cache, whether it is there or not."""
    return cache_folder() / f"models--{model.id.replace('/', '--')}"


def reference(model: HubId) -> Path:
    """Returns the file that says which commit a branch or tag stood for when it was downloaded."""
    return repository_folder(model) / "refs" / model.revision


def snapshot(model: HubId) -> Path | None:
    """Returns the folder of a downloaded revision; None where its configuration is not there."""
    commit = model.revision
    if not COMMIT.fullmatch(commit):
        try:
            commit = reference(model).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        if not COMMIT.fullmatch(commit):
            return None
    folder = repository_folder(model) / "snapshots" / commit
    return folder if (folder / "config.json").is_file() else None


def absent_weights(folder: Path) -> list[str]:
    """Returns the files of weights that a snapshot lacks, as after an interrupted download.

    Raises:
        ModelError: The index of the shards is not valid.
    """
    if (folder / WEIGHTS).is_file():
        return []
    if not (folder / INDEX).is_file():
        return [WEIGHTS]
    return [name for name in shards_of(folder) if not (folder / name).is_file()]


def checksums(folder: Path) -> dict[str, str]:
    """Returns the checksums of a snapshot's files by name, from the names in the cache that the files are links to.

    A cache on a disk without links has none.
    """
    links = {path.name: Path(os.readlink(path)).name for path in sorted(folder.iterdir()) if path.is_symlink()}
    return {name: digest for name, digest in links.items() if DIGEST.fullmatch(digest)}


def digest(path: Path, like: str) -> str:
    """Returns the checksum of a file: SHA-256 where `like` has 64 digits, else the SHA-1 of a blob of Git."""
    if len(like) == 64:
        return sha256(path)
    found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def facts_of(model: HubId, folder: Path) -> dict[str, Any]:
    """Returns what is known of a snapshot: where it is from, and licence and language as its model card states them."""
    facts: dict[str, Any] = {"origin": {"kind": "hub", "id": model.id, "revision": folder.name}}
    try:
        with open(folder / "README.md", encoding="utf-8", errors="replace") as file:
            heading = file.read(_CARD_BYTES).partition("---\n")[2].partition("\n---")[0]
    except OSError:
        return facts
    names = {"license": "licence", "language": "language"}
    return facts | {names[key]: value for key, value in _CARD_ENTRY.findall(heading)}


def downloaded() -> list[HubId]:
    """Returns the repositories of the cache whose branch `main` is there, sorted by name."""
    names = [store.name.split("--", 1)[1].replace("--", "/") for store in sorted(cache_folder().glob("models--*--*"))]
    return [HubId(name) for name in names if _is_id(name) and snapshot(HubId(name)) is not None]
