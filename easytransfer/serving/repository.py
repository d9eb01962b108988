"""The versions that are served: found, loaded, warmed up, exchanged under load, and unloaded when nobody uses them."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easytransfer.errors import EasyTransferError
from easytransfer.run.log import say, warn
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.servable import Servable
from easytransfer.serving.sources import ModelDirectory, Source, fingerprint, versions_in

LOADING, AVAILABLE, UNLOADING, END = "LOADING", "AVAILABLE", "UNLOADING", "END"


@dataclass(frozen=True)
class Target:
    """Which version of which model a request means: one by number or by label, or the highest that is available."""

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"Specific({self.name}, {self.version})"
        return f"Latest({self.name})"


@dataclass
class VersionStatus:
    """Where a version is in its life, and why it is not served if it failed."""

    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass
class _Model:
    source: Source
    loaded: dict[int, Servable] = field(default_factory=dict)
    states: dict[int, VersionStatus] = field(default_factory=dict)
    failed: dict[int, tuple[Any, ...]] = field(default_factory=dict)


class Repository:
    """All models of a directory.

    `poll` is called by one thread at a time; everything else by any.

    Args:
        directory: Where the versions are.
        load: Makes a servable of a model's name, a version and its folder.
    """

    def __init__(self, directory: ModelDirectory, load: Callable[[str, int, Path], Servable]) -> None:
        self._directory, self._load = directory, load
        self._models: dict[str, _Model] = {}
        self._uses: dict[Servable, int] = {}
        self._retired: dict[Servable, VersionStatus] = {}
        self._lock = threading.Lock()
        self._reported, self._ended = "", False

    @property
    def names(self) -> list[str]:
        """Names of all models, served or not."""
        with self._lock:
            return sorted(self._models)

    def __contains__(self, name: object) -> bool:
        """Says whether there is a model of this name."""
        return name in self._models

    @property
    def ready(self) -> bool:
        """Says whether every model has a version that is available."""
        with self._lock:
            return bool(self._models) and all(model.loaded for model in self._models.values())

    def poll(self) -> None:
        """Brings what is served in line with what is in the directory.

        A new version is loaded and warmed up before the one it replaces is given up. A version that does not load is
        left out, as if it were not there, until one of its files changes.
        """
        try:
            sources = {source.name: source for source in self._directory.sources()}
        except (EasyTransferError, OSError) as error:
            self._report(f"looking for versions failed, what is served stays: {error}")
            return
        for name, source in sources.items():
            with self._lock:
                model = self._models.setdefault(name, _Model(source))
                model.source = source
            self._update(model)
        if self._directory.listed:
            for name in set(self._models) - set(sources):
                model = self._models[name]
                self._retire(model, set(model.loaded))
                with self._lock:
                    del self._models[name]
        if self._ended:
            # The graph of a model is held by a circle of references; Python itself looks for those when much is made.
            self._ended = False
            gc.collect()

    @contextlib.contextmanager
    def lease(self, target: Target) -> Iterator[Servable]:
        """Gives the version a request means, which is not unloaded as long as the block runs.

        Raises:
            ServingFailure: It is not available.
        """
        with self._lock:
            servable = self._find(target)
            self._uses[servable] = self._uses.get(servable, 0) + 1
        try:
            yield servable
        finally:
            with self._lock:
                self._uses[servable] -= 1
                if not self._uses[servable]:
                    del self._uses[servable]
                    self._end_if_unused(servable)

    def folder_of(self, servable: Servable) -> Path:
        """Returns the version folder of a servable that is leased."""
        with self._lock:
            return self._models[servable.name].source.folder / str(servable.version)

    def status(self, target: Target) -> dict[int, VersionStatus]:
        """Returns the states of the versions a target means, all of the model for the highest one.

        Raises:
            ServingFailure: There are none.
        """
        with self._lock:
            version = self._version_of(target)
            model = self._models.get(target.name)
            states = dict(model.states) if model else {}
            if version is not None and version not in states:
                raise ServingFailure("NOT_FOUND", f"Could not find version {version} of model {target.name}")
            if not states:
                raise ServingFailure("NOT_FOUND", f"Could not find any versions of model {target.name}")
            return states if version is None else {version: states[version]}

    def _version_of(self, target: Target) -> int | None:
        if target.label is None:
            return target.version
        model = self._models.get(target.name)
        if model is None or target.label not in model.source.labels:
            raise ServingFailure("INVALID_ARGUMENT", f"Unrecognized servable version label: {target.label}")
        return model.source.labels[target.label]

    def _find(self, target: Target) -> Servable:
        model = self._models.get(target.name)
        loaded = model.loaded if model else {}
        version = self._version_of(target)
        found = loaded.get(max(loaded, default=0) if version is None else version)
        if found is None:
            meant = Target(target.name, version)
            raise ServingFailure("NOT_FOUND", f"Servable not found for request: {meant}")
        return found

    def _update(self, model: _Model) -> None:
        while True:
            folders = versions_in(model.source.folder, self._directory.program)
            usable = [v for v, folder in folders.items() if v in model.loaded or not self._is_broken(model, v, folder)]
            wanted = model.source.policy.wanted(usable)
            missing = wanted - model.loaded.keys()
            if not missing:
                break
            self._load_version(model, max(missing), folders[max(missing)])
        # With no version left in the folder, what is served stays: a lost mount must not stop a server.
        if wanted:
            self._retire(model, model.loaded.keys() - wanted)
        elif not model.loaded:
            self._report(f"{model.source.name}: no version to serve in {model.source.folder}")

    def _is_broken(self, model: _Model, version: int, folder: Path) -> bool:
        return version in model.failed and model.failed[version] == fingerprint(folder)

    def _load_version(self, model: _Model, version: int, folder: Path) -> None:
        name, before = model.source.name, fingerprint(folder)
        model.states[version] = VersionStatus(LOADING)
        try:
            servable = self._load(name, version, folder)
        except Exception as error:  # whatever a damaged or foreign SavedModel makes TensorFlow raise
            reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:500]
            model.failed[version] = before
            model.states[version] = VersionStatus(END, "UNKNOWN", reason)
            warn(f"{name} version {version} does not load and is left out: {reason}", model=name, version=version)
            return
        model.failed.pop(version, None)
        with self._lock:
            model.loaded[version] = servable
            model.states[version] = VersionStatus(AVAILABLE)
        say(f"{name} version {version} is available", model=name, version=version)

    def _retire(self, model: _Model, versions: set[int]) -> None:
        for version in versions:
            with self._lock:
                servable = model.loaded.pop(version)
                model.states[version] = VersionStatus(UNLOADING)
                self._retired[servable] = model.states[version]
                self._end_if_unused(servable)
            say(f"{model.source.name} version {version} is given up", model=model.source.name, version=version)

    def _end_if_unused(self, servable: Servable) -> None:
        if servable in self._retired and servable not in self._uses:
            servable.close()
            self._ended = True
            self._retired.pop(servable).state = END

    def _report(self, text: str) -> None:
        if text != self._reported:
            warn(text)
        self._reported = text
