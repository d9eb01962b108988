"""The history of one training run: `metrics.jsonl` and the TensorBoard events made from the same records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easytransfer.run.atomic import plain, write_text

METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "events"
# Keys of a record that are not curves.
_NOT_CURVES = ("event", "step", "time")
_GROUPS = {"step": "train", "evaluation": "eval"}


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`; a last line that a killed run left half written is dropped.

    Args:
        path: The file or the run folder that holds it; an absent file gives an empty list.

    Raises:
        ValueError: A line before the last is not JSON.
    """
    path = Path(path)
    path = path / METRICS_FILE if path.is_dir() else path
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records += [json.loads(line)] if line.strip() else []
        except ValueError:
            if any(rest.strip() for rest in lines[number:]):
                raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from None
    return records


def curves(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a record by the names of their curves, such as `train/loss` and `eval/accuracy`."""
    group = _GROUPS.get(record["event"], record["event"])
    return {
        f"{group}/{name}": value
        for name, value in record.items()
        if name not in _NOT_CURVES and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


class History:
    """Appends records to `metrics.jsonl` and to TensorBoard event files of a run folder.

    A resumed run starts from the records up to its first step: later ones describe work that is done again. The event
    files are written anew from them, so TensorBoard shows one curve without a fold.

    Args:
        folder: The run folder.
        start_step: Records after this step are removed; 0 starts empty.
        tensorboard: Also write event files (imports TensorFlow).

    Attributes:
        kept: The records of the earlier run that this one continues.
    """

    def __init__(self, folder: str | os.PathLike[str], *, start_step: int = 0, tensorboard: bool = True) -> None:
        path = Path(folder) / METRICS_FILE
        kept = [record for record in read_history(path) if record["step"] <= start_step] if start_step else []
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
        self.kept = kept
        self._file = path.open("a", encoding="utf-8")
        self._events = _EventFile(Path(folder) / EVENTS_FOLDER) if tensorboard else None
        for record in kept:
            self._to_events(record)

    def append(self, event: str, step: int, metrics: dict[str, Any]) -> dict[str, Any]:
        """Writes one record at once, so that a killed run loses nothing before it; returns the record.

        Args:
            event: `step` or `evaluation`.
            step: Optimizer steps done.
            metrics: Numbers by name; non-finite ones become null.
        """
        record = plain({"event": event, "step": int(step), **metrics, "time": round(time.time(), 3)})
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        self._to_events(record)
        return record

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._events:
            self._events.close()

    def _to_events(self, record: dict[str, Any]) -> None:
        if self._events:
            self._events.scalars(record["step"], record.get("time", 0.0), curves(record))


class _EventFile:
    """A TensorBoard event file; unlike `tf.summary` it keeps the recorded wall time when history is rewritten."""

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf  # here, so that reading a run folder does not cost its import

        self._tf = tf.compat.v1
        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.{os.getpid()}"))
        self._write(self._tf.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, wall_time: float, values: dict[str, float]) -> None:
        summary = self._tf.Summary(
            value=[self._tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        self._write(self._tf.Event(wall_time=wall_time, step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()
