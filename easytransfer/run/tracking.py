"""Trackers of experiments: MLflow and Weights & Biases get what the run folder gets, at first on this machine only.

A run that goes on goes on in the tracker too: its identity there is in the run folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from easytransfer.config.json_text import parse_json
from easytransfer.config.tracking import TrackingConfig
from easytransfer.errors import ConfigError, Interrupted, ResourceError
from easytransfer.installing import install_line
from easytransfer.run.atomic import plain, write_json
from easytransfer.run.comparison import flat
from easytransfer.run.history import curves
from easytransfer.run.log import say, warn
from easytransfer.run.secrets import HIDDEN, is_secret, without_secrets

TRACKING_FILE = "tracking.json"
_TITLES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
# Both packages report on their use and their errors to their makers unless told not to.
_SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
# The most that MLflow takes at a time, and of one value.
_MOST_PARAMS, _LONGEST_PARAM = 100, 6000
_END = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class Tracker(Protocol):
    """One tracker with the run open in it."""

    key: str

    def metrics(self, step: int, time: float, values: Mapping[str, float]) -> None:
        """Writes numbers of a step; `time` in seconds since 1970."""

    def result(self, values: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        """Writes the metrics of the finished run and keeps copies of files."""

    def end(self, status: str) -> None:
        """Ends the run: `done`, `interrupted` or `failed`."""


def check_tracking(tracking: TrackingConfig, offline: bool) -> None:
    """Checks that trackers are installed, and that nothing is sent away unasked.

    Args:
        tracking: The settings.
        offline: Whether the job must not touch the network.

    Raises:
        ConfigError: A package is missing, or a tracker on the network is asked for under `offline`.
    """
    for name in tracking.trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{_TITLES[name]} is not installed, which tracking.trackers asks for", fix=install_line(name)
            )
    away = {
        "tracking.wandb_mode=online": "wandb" in tracking.trackers and tracking.wandb_mode == "online",
        f"tracking.mlflow_uri={tracking.mlflow_uri}": "mlflow" in tracking.trackers and _is_away(tracking.mlflow_uri),
    }
    for asked, is_asked in away.items():
        if is_asked and offline:
            raise ConfigError(f"{asked} sends the run over the network", fix="add --offline=false to allow that")


def _is_away(uri: str | None) -> bool:
    return (
        uri is not None and ("://" in uri or uri.startswith("databricks")) and not uri.startswith(("file:", "sqlite:"))
    )


class Tracking:
    """The trackers of one training; as a context manager it ends their runs as the block ends.

    What fails once the training has begun is said once, and the training goes on without that tracker.

    Args:
        trackers: With their runs open.
        known: Keys of trackers whose run goes on.
        same: Whether steps that are repeated have the numbers they had.
    """

    def __init__(self, trackers: Sequence[Tracker] = (), known: Sequence[str] = (), same: bool = True) -> None:
        self._trackers, self._known, self._same = list(trackers), set(known), same
        self._sent: dict[str, set[tuple[str, int]]] = {}
        self._status = "failed"

    def begin(self, records: Sequence[Mapping[str, Any]], start_step: int) -> None:
        """Takes the history of the run so far, before it is cut back to `start_step`.

        What a tracker has already is not sent again when these steps are repeated, but the last record: a run that was
        killed may not have sent it. A tracker that is new to the run gets all that is kept.
        """
        for tracker in list(self._trackers):
            self._sent[tracker.key] = set()
            if tracker.key in self._known:
                for record in records[-1:]:
                    self._send(tracker, record)
                had = [record for record in records if self._same or record["step"] <= start_step]
                self._sent[tracker.key] = {(record["event"], record["step"]) for record in had}
            else:
                for record in records:
                    if record["step"] <= start_step:
                        self._send(tracker, record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Passes on one record of `metrics.jsonl`."""
        for tracker in list(self._trackers):
            if (record["event"], record["step"]) not in self._sent.get(tracker.key, ()):
                self._send(tracker, record)

    def complete(self, report: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Passes on the metrics of the exported weights, and copies of files."""
        self._status = "done"
        numbers = {f"final/{name}": float(value) for name, value in report["metrics"].items() if _is_number(value)}
        present = [file for file in files if file.is_file()]
        for tracker in list(self._trackers):
            self._guarded(tracker, lambda t=tracker: t.result(numbers, report["checkpoint_step"], present))

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        status = "interrupted" if isinstance(error, (Interrupted, KeyboardInterrupt)) else self._status
        for tracker in list(self._trackers):
            self._guarded(tracker, lambda t=tracker: t.end("failed" if error and status == "done" else status))

    def _send(self, tracker: Tracker, record: Mapping[str, Any]) -> None:
        values = curves(record)
        if values:
            self._guarded(tracker, lambda: tracker.metrics(record["step"], record["time"], values))

    def _guarded(self, tracker: Tracker, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._trackers.remove(tracker)
            warn(f"{_TITLES[tracker.key]} failed and gets no more of this run: {_line(error)}")


def open_tracking(
    tracking: TrackingConfig,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    offline: bool,
    resuming: bool = False,
    changed: bool = False,
) -> Tracking:
    """Opens the run in each tracker.

    Args:
        tracking: Which trackers, and where.
        folder: Run folder; its name is that of the tracked run.
        settings: Configuration of the run as JSON types.
        offline: Whether the job must not touch the network.
        resuming: Whether the run goes on; it then does in the tracker, too.
        changed: Whether it goes on with other settings, so that what it repeats has other numbers.

    Raises:
        ConfigError: See `check_tracking`.
        ResourceError: A tracker does not take the run.
    """
    check_tracking(tracking, offline)
    path = folder / TRACKING_FILE
    stored = parse_json(path.read_text(encoding="utf-8")) if resuming and path.is_file() else {}
    for variable, value in _SILENT.items():
        os.environ.setdefault(variable, value)
    trackers: list[Tracker] = []
    for name in tracking.trackers:
        try:
            tracker = _OPEN[name](tracking, folder, _shown(settings), stored.get(name))
        except Exception as error:
            raise ResourceError(f"{_TITLES[name]} does not take the run: {_line(error)}") from error
        trackers.append(tracker)
    if trackers:
        write_json(path, {**stored, **{tracker.key: tracker.identity for tracker in trackers}})
    return Tracking(trackers, [name for name in tracking.trackers if name in stored], same=not changed)


def _shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by dotted path, without secrets."""
    return {
        path: HIDDEN if is_secret(path) and value else without_secrets(value) if isinstance(value, str) else value
        for path, value in flat(plain(settings)).items()
    }


def _line(error: Exception) -> str:
    return without_secrets((str(error).strip() or type(error).__name__).splitlines()[0])[:300]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _MLflow:
    """A run of MLflow, written through its client alone: no global state, no variable but ours decides where."""

    key = "mlflow"

    def __init__(self, tracking: TrackingConfig, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        place = tracking.mlflow_uri or str(folder.absolute().parent / "mlruns")
        uri = place if "://" in place or place.startswith(("file:", "databricks")) else str(Path(place).absolute())
        self._client = MlflowClient(tracking_uri=uri)
        if run_id is not None:
            self.identity = run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            known = self._client.get_experiment_by_name(tracking.project)
            experiment = known.experiment_id if known else self._client.create_experiment(tracking.project)
            self.identity = self._client.create_run(experiment, run_name=folder.absolute().name).info.run_id
            texts = {path: value if isinstance(value, str) else json.dumps(value) for path, value in settings.items()}
            params = [Param(path, text[:_LONGEST_PARAM]) for path, text in texts.items()]
            for start in range(0, len(params), _MOST_PARAMS):
                self._client.log_batch(self.identity, params=params[start : start + _MOST_PARAMS])
        say(f"MLflow: run {self.identity} of {tracking.project} in {uri}")

    def metrics(self, step: int, time: float, values: Mapping[str, float]) -> None:
        points = [self._metric(name, float(value), int(1000 * time), step) for name, value in values.items()]
        self._client.log_batch(self.identity, metrics=points)

    def result(self, values: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        import time

        self.metrics(step, time.time(), values)
        for file in files:
            self._client.log_artifact(self.identity, str(file))

    def end(self, status: str) -> None:
        self._client.set_terminated(self.identity, _END[status])


class _WandB:
    """A run of Weights & Biases; offline, each start writes a folder of its own with the same run in it."""

    key = "wandb"

    def __init__(self, tracking: TrackingConfig, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        import wandb

        self.identity = run_id or uuid.uuid4().hex[:12]
        online = tracking.wandb_mode == "online"
        base = folder.absolute().parent
        quiet = {"console": "off", "save_code": False, "disable_git": True, "silent": True}
        self._run = wandb.init(
            project=tracking.project,
            name=folder.absolute().name,
            id=self.identity,
            resume="allow" if online else None,
            mode=tracking.wandb_mode,
            dir=str(base),
            config=settings,
            settings=wandb.Settings(**quiet, x_disable_meta=True, x_disable_stats=True),
        )
        # Curves over our steps: those of W&B cannot go back where a run is continued.
        self._run.define_metric("*", step_metric="step")
        say(f"Weights & Biases: run {self.identity} of {tracking.project}, {tracking.wandb_mode}, in {base / 'wandb'}")

    def metrics(self, step: int, time: float, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def result(self, values: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        self._run.summary.update({**values, "final/step": step})
        for file in files:
            # A copy: of a file elsewhere W&B keeps a link only.
            copy = shutil.copy(file, self._run.dir)
            self._run.save(copy, base_path=self._run.dir, policy="now")

    def end(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "done" else 1)


_OPEN: dict[str, Callable[..., Any]] = {"mlflow": _MLflow, "wandb": _WandB}
