"""Where versions come from: the folders below MODEL_DIR, and what `models.config` says about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easytransfer.errors import ConfigError, ModelError
from easytransfer.litert.model import MODEL
from easytransfer.run.log import say
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.server_files import parse_file

_VERSION = re.compile(r"[1-9]\d{0,18}")
# What makes a folder a version: a SavedModel or, where a folder has none, a model for LiteRT.
SAVED_MODEL, PROGRAMS = "saved_model.pb", ("saved_model.pb", MODEL)


@dataclass(frozen=True)
class Policy:
    """Which versions to serve: the `latest` ones in number, those that `specific` names, or all if both are empty."""

    latest: int = 1
    specific: frozenset[int] = frozenset()

    def wanted(self, versions: Iterable[int]) -> set[int]:
        """Returns those to be served of the versions that are there."""
        if self.specific:
            return self.specific & set(versions)
        return set(sorted(versions, reverse=True)[: self.latest or None])


@dataclass(frozen=True)
class Source:
    """One model: its name, the folder of its versions, which of them to serve, and names for some of them."""

    name: str
    folder: Path
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)


class ModelDirectory:
    """What is to be served below a folder; looked up again at every call, since exports and labels change.

    Args:
        path: A folder of models, with or without `models.config`; the folder of one model; or that of one version.

    Attributes:
        base: The folder of models; that of the configuration files.
        program: What versions hold, one of `PROGRAMS`: SavedModels where there are some, and then no others.
        listed: Whether `models.config` says what to serve, so that a model it drops is unloaded.

    Raises:
        ModelError: Nothing to serve is there.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path).resolve()
        self._model: Path | None = None
        self._version: int | None = None
        there = [each for each in PROGRAMS if (folder / each).is_file() or any(_programs(folder, each))]
        self.program = there[0] if there else SAVED_MODEL
        if len(there) > 1:
            say(f"{folder} holds LiteRT exports beside SavedModels; they are passed over: give the folder of one")
        if (folder / self.program).is_file():
            if not _VERSION.fullmatch(folder.name):
                raise ModelError(
                    "the folder of a version must be named by its number",
                    received=folder.name,
                    accepted="1, 2, 3, ...",
                    fix="move it to MODEL/1",
                )
            self._model, self._version = folder.parent, int(folder.name)
        elif versions_in(folder, self.program):
            self._model = folder
        elif not (folder / "models.config").is_file() and not there:
            names = sorted(item.name for item in folder.iterdir())[:20] if folder.is_dir() else "nothing"
            raise ModelError(
                f"no exported model at {folder}",
                received=names,
                accepted=f"MODEL/VERSION/ with {' or '.join(PROGRAMS)}, its model folder or the folder above it",
                fix="give the folder that `export` wrote",
            )
        self.base = self._model.parent if self._model else folder

    @property
    def listed(self) -> bool:
        """Says whether `models.config` is there and decides what to serve."""
        return self._model is None and (self.base / "models.config").is_file()

    def sources(self) -> list[Source]:
        """Returns the models to serve now.

        Raises:
            ConfigError: `models.config` is not usable.
        """
        configured = {source.name: source for source in self._configured()}
        if self._model:
            source = configured.get(self._model.name, Source(self._model.name, self._model))
            only = Policy(specific=frozenset([self._version])) if self._version else source.policy
            return [Source(source.name, self._model, only, source.labels)]
        if self.listed:
            return list(configured.values())
        visible = (path for path in sorted(self.base.glob("*")) if not path.name.startswith("."))
        folders = [path for path in visible if versions_in(path, self.program)]
        return [Source(folder.name, folder) for folder in folders]

    def _configured(self) -> list[Source]:
        path = self.base / "models.config"
        if not path.is_file():
            return []
        configs = parse_server_file(path, path.name).model_config_list.config
        names = [config.name for config in configs]
        if len(set(names)) < len(names) or "" in names:
            raise ConfigError(f"{path}: every model needs a name of its own", received=names)
        return [
            Source(config.name, self._folder(config), _policy(config.model_version_policy), dict(config.version_labels))
            for config in configs
        ]

    def _folder(self, config: Any) -> Path:
        # The file is written for a container, which sees the exports under another path.
        beside = self.base / Path(config.base_path).name
        return beside if beside.is_dir() else Path(config.base_path)


def versions_in(folder: Path, program: str) -> dict[int, Path]:
    """Returns the version folders in a model folder by their numbers; `program` is the file that makes them one."""
    found = [path for path in folder.glob("*") if _VERSION.fullmatch(path.name) and (path / program).is_file()]
    return {int(path.name): path for path in found}


def _programs(folder: Path, program: str) -> Iterator[Path]:
    """Yields the files of that name in version folders of a model folder, or of a folder of models."""
    for above in ("*", "*/*"):
        yield from (path for path in folder.glob(f"{above}/{program}") if _VERSION.fullmatch(path.parent.name))


def fingerprint(folder: Path) -> tuple[Any, ...]:
    """Returns what changes when a file of a version does, so that a broken copy is tried again once it is complete."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return tuple(sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


def parse_server_file(path: Path, kind: str) -> Any:
    """Returns the message in a configuration file of the server.

    Args:
        path: The file.
        kind: The name such a file has beside the models.

    Raises:
        ConfigError: It does not parse.
    """
    try:
        return parse_file(path, kind)
    except CheckFailed as failure:
        raise ConfigError(f"{path} is not usable", received=str(failure), fix="correct or remove it") from failure


def _policy(policy: Any) -> Policy:
    if policy.HasField("specific"):
        if not policy.specific.versions:
            raise ConfigError("models.config: the policy `specific` needs versions")
        return Policy(specific=frozenset(policy.specific.versions))
    return Policy(latest=0 if policy.HasField("all") else policy.latest.num_versions or 1)
