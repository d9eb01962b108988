"""The run folder: everything one training writes, who may write it, and whether it may be continued."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ConfigError, Interrupted, ModelError, ResourceError
from easytransfer.run import log
from easytransfer.run.atomic import plain, write_json
from easytransfer.run.comparison import config_differences
from easytransfer.run.environment import failure_record, peak_memory_mb
from easytransfer.run.history import EVENTS_FOLDER, METRICS_FILE
from easytransfer.run.lock import FolderLock, check_space, is_locked
from easytransfer.run.pictures import PICTURES

CONFIG_FILE = "train_config.json"
RUN_FILE = "run.json"
EVALUATION_FILE = "evaluation.json"
LABELS_FILE = "label_mapping.json"
REPORT_FILE = "report.json"
# Label and answer of every evaluation row, and the page of those that are wrong.
ROWS_FILE, WRONG_ROWS_FILE = "evaluation_rows.npz", "wrong_rows.html"
# The threshold that an evaluation found best, where the application keeps one.
THRESHOLD_FILE = "threshold.json"
CHECKPOINT_PATTERN = "model.ckpt-*"

# What a new run may remove from a folder that holds an older run; anything else in it is left alone.
_WRITTEN = (
    *(RUN_FILE, EVALUATION_FILE, LABELS_FILE, REPORT_FILE, METRICS_FILE, EVENTS_FOLDER, CONFIG_FILE),
    *("tracking.json", THRESHOLD_FILE),
    *(CHECKPOINT_PATTERN, "checkpoint.json", "DONE", "FAILED", "evaluation-*.json", "held_out", *PICTURES),
    *(ROWS_FILE, WRONG_ROWS_FILE),
)

Resume = Literal["auto", "never", "must"]
Status = Literal["new", "running", "stopped", "failed", "done"]


class RunFolder:
    """One training's folder. `create` opens it for a training, the constructor for reading.

    As a context manager it is one training: an error that leaves the block ends the run as interrupted or failed.

    Attributes:
        path: The folder.
        resuming: True when an earlier run is continued.
        changed: Settings that differ from the earlier run, `(old, new)` by dotted key.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.resuming = False
        self.changed: dict[str, tuple[Any, Any]] = {}
        self._lock: FolderLock | None = None
        self._begin = time.monotonic()
        self._parts: dict[str, float] = {}

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        resume: Resume = "auto",
        overwrite: bool = False,
        needed_bytes: int = 0,
        defaults: Mapping[str, Any] | None = None,
        inputs: Sequence[Mapping[str, Any]] = (),
    ) -> RunFolder:
        """Makes or continues a run folder, locks it and writes the resolved configuration.

        Args:
            path: The folder, made if absent.
            config: Resolved configuration (`config.model_dump(mode="json")`).
            resume: `auto` continues a run with the same configuration, `must` any run that is there, `never` none.
            overwrite: Remove the run that is there and start a new one.
            needed_bytes: Disk space the run will take.
            defaults: Values of settings that the run that is there does not name, because it is older than they are.
            inputs: Its tables, see `run.environment.input_records`; a continued run must have the same.

        Raises:
            ConfigError: A run with another configuration is there (the differing keys are named), or none to resume.
            ResourceError: Not writable, disk too full, or another training uses the folder.
        """
        folder = cls(path)
        check_space(path, needed_bytes)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._lock = FolderLock(folder.path)
            plan = folder.plan(config, resume=resume, overwrite=overwrite, defaults=defaults, inputs=inputs)
            if plan == "replace":
                folder._remove_run()
            folder.resuming = plan == "resume"
            for marker in ("DONE", "FAILED"):
                (folder.path / marker).unlink(missing_ok=True)
            folder.write_json(CONFIG_FILE, config)
        except OSError as error:
            folder.close()
            raise ResourceError(
                f"cannot write the run folder {folder.path}: {error.strerror or error}",
                fix="choose another checkpointDir",
            ) from error
        except Exception:
            folder.close()
            raise
        return folder

    def plan(
        self,
        config: Mapping[str, Any],
        *,
        resume: Resume = "auto",
        overwrite: bool = False,
        defaults: Mapping[str, Any] | None = None,
        inputs: Sequence[Mapping[str, Any]] = (),
    ) -> Literal["new", "resume", "replace"]:
        """Says what `create` would do, changing nothing; `--dryRun` calls it. Sets `changed`.

        Raises:
            ConfigError: See `create`.
        """
        if not (self.path / CONFIG_FILE).is_file():
            if resume == "must" and not overwrite:
                raise ConfigError(f"no run to resume in {self.path}", fix="use --resume=auto to start one")
            return "new"
        if overwrite:
            return "replace"
        self.changed = config_differences(self.config, plain(config), plain(defaults or {}))
        if resume == "never":
            raise ConfigError(
                f"{self.path} holds a run already", fix="use --overwrite to replace it, or another checkpointDir"
            )
        if resume == "must" or not self.changed:
            self._check_inputs(inputs, resume)
            return "resume"
        if not any(self.path.glob(CHECKPOINT_PATTERN)):
            return "replace"  # The earlier run stopped before it had anything to lose.
        shown = [f"{key}: {before!r} -> {after!r}" for key, (before, after) in self.changed.items()]
        raise ConfigError(
            f"{self.path} holds a run with another configuration ({', '.join(shown)})",
            fix="use --overwrite to replace it, --resume=must to continue it with the new values, "
            "or another checkpointDir",
        )

    # Reading -----------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The stored configuration.

        Raises:
            ModelError: The folder holds no run.
        """
        if not (self.path / CONFIG_FILE).is_file():
            raise ModelError(
                f"{self.path} is not a run folder: it has no {CONFIG_FILE}",
                accepted="the checkpointDir of a training, or a checkpoint or export inside it",
            )
        return self.read_json(CONFIG_FILE)

    @property
    def status(self) -> Status:
        """`new` (no run), `running` (locked by a training), `done`, `failed` or `stopped` (can be resumed)."""
        if not (self.path / CONFIG_FILE).is_file():
            return "new"
        for marker, status in (("DONE", "done"), ("FAILED", "failed")):
            if (self.path / marker).exists():
                return status  # type: ignore[return-value]
        return "running" if self._lock is not None or is_locked(self.path) else "stopped"

    @property
    def labels(self) -> list[str] | None:
        """Label names in the order of their ids, None for a regression."""
        mapping = self.read_json(LABELS_FILE, default=None)
        return None if mapping is None else sorted(mapping, key=mapping.get)

    def read_json(self, name: str, default: Any = ...) -> Any:
        """Reads a JSON file of the folder.

        Raises:
            ModelError: Absent without a default, or not JSON.
        """
        path = self.path / name
        if not path.is_file() and default is not ...:
            return default
        try:
            return parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error

    # Writing -----------------------------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file of the folder atomically and returns its path."""
        write_json(self.path / name, value)
        return self.path / name

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Writes `run.json` at the start; a continued run keeps the earlier records under `earlier`."""
        earlier = []
        if self.resuming and (previous := self.read_json(RUN_FILE, default=None)):
            earlier = [*previous.pop("earlier", []), previous]
        self._begin = time.monotonic()
        resumed_with = {key: list(values) for key, values in self.changed.items()}
        self.write_json(RUN_FILE, {**record, "changed_settings": resumed_with, "earlier": earlier, "status": "running"})

    def write_evaluation(self, step: int, metrics: Mapping[str, float], *, is_best: bool) -> None:
        """Adds one evaluation to `evaluation.json`, which holds the `best` and the `last`.

        Args:
            step: Optimizer steps done.
            metrics: Numbers by name.
            is_best: Whether this one is the best so far.
        """
        entry = {"step": step, **metrics}
        stored = self.read_json(EVALUATION_FILE, default={})
        best = entry if is_best or "best" not in stored else stored["best"]
        self.write_json(EVALUATION_FILE, {"best": best, "last": entry})

    def write_measured(self, which: Literal["best", "last"], metrics: Mapping[str, float]) -> None:
        """Has `evaluation.json` say what the weights that are exported measure, with what was chosen at the end.

        Args:
            which: The entry of these weights.
            metrics: Numbers by name.
        """
        stored = self.read_json(EVALUATION_FILE, default={})
        self.write_json(EVALUATION_FILE, {**stored, which: {**stored.get(which, {}), **metrics}})

    def finish(
        self,
        status: Literal["done", "failed", "interrupted"],
        *,
        report: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Writes the marker, `report.json` and the wall time, and releases the lock.

        Args:
            status: `done` leaves a DONE marker, `failed` a FAILED marker, `interrupted` none (the run can go on).
            report: Facts for the model card (see `easytransfer.run.card`).
            error: What ended a failed run.
        """
        try:
            self._write_end(status, report, error)
        except OSError as problem:
            # A disk that is full must not hide what went wrong before.
            if status == "done":
                raise
            log.warn(f"cannot write the end of the run into {self.path}: {problem}")
        finally:
            self.close()

    def _write_end(self, status: str, report: Mapping[str, Any] | None, error: BaseException | None) -> None:
        record = self.read_json(RUN_FILE, default={})
        seconds = time.monotonic() - self._begin
        ended = {"status": status, "wall_time_s": round(seconds, 1), "peak_memory_mb": round(peak_memory_mb())}
        if self._parts:
            ended["parts_s"] = {name: round(part, 1) for name, part in self._parts.items()}
        self.write_json(RUN_FILE, {**record, **ended, "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
        failure = failure_record(error) if error is not None else None
        if report is not None or failure is not None:
            extra = {"failure": failure} if failure else {}
            self.write_json(REPORT_FILE, {"status": status, **(report or {}), **extra})
        if status != "interrupted":
            self.write_json("DONE" if status == "done" else "FAILED", failure or ended)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds of a block to those of a part of the job, for the end of its log and `run.json`."""
        begin = time.monotonic()
        yield
        self._parts[part] = self._parts.get(part, 0.0) + time.monotonic() - begin

    def time_line(self) -> str:
        """Returns where the time of this start went, in one line."""
        parts = ", ".join(f"{name} {part:.0f} s" for name, part in self._parts.items())
        return f"time: {time.monotonic() - self._begin:.0f} s, of which {parts}"

    def close(self) -> None:
        """Releases the lock; the folder can be used by another training."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # The lock is held until the run has ended: without one the error came after its end.
        if error is not None and self._lock is not None:
            self.finish("interrupted" if isinstance(error, Interrupted) else "failed", error=error)
        self.close()

    # Inside ------------------------------------------------------------------------------------------------

    def _check_inputs(self, inputs: Sequence[Mapping[str, Any]], resume: Resume) -> None:
        """Refuses to go on with a table that has changed: the order of its rows and its metrics would not fit."""
        if not any(self.path.glob(CHECKPOINT_PATTERN)):
            return  # Nothing was made with the earlier tables.
        before = input_contents(self.read_json(RUN_FILE, default={}).get("inputs", ()))
        for table, files in input_contents(inputs).items():
            known = before.get(table)
            # Elsewhere is not another: only contents count.
            if known is None or list(known.values()) == list(files.values()):
                continue
            shown = [path for path, digest in files.items() if digest not in known.values()]
            shown = shown or [path for path, digest in known.items() if digest not in files.values()] or list(files)
            what = f"the {table} table has changed since the run in {self.path} was started: {', '.join(shown[:5])}"
            if resume == "must" and table != "training":
                log.warn(f"{what}; the best checkpoint so far was chosen on the earlier one")
                continue
            raise ConfigError(
                what,
                fix="restore it, or start a new run: --overwrite or another checkpointDir, "
                "with init_checkpoint_path to begin with these weights",
            )

    def _remove_run(self) -> None:
        for pattern in _WRITTEN:
            for path in self.path.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def input_contents(inputs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Returns, for each table, the hashes of its files by path; records of older runs do not say which table."""
    found: dict[str, dict[str, str]] = {}
    for record in inputs:
        if "table" in record:
            found.setdefault(record["table"], {})[record["path"]] = record["sha256"]
    return found
