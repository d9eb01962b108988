"""A training in a process of its own, with an ordinary run folder; configuration and log beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easytransfer.config.files import dump
from easytransfer.config.job import JobConfig
from easytransfer.config.json_text import parse_json
from easytransfer.errors import BY_EXIT_CODE, EasyTransferError
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import REPORT_FILE, RunFolder
from easytransfer.run.history import read_history

PROGRAM = (sys.executable, "-c", "from appzoo.cli.main import main; raise SystemExit(main())")
_LOG_BYTES = 16_384
# Settings that may differ when trainings go on.
_MAY_DIFFER = ("checkpoint_dir", "runtime.log_format", "runtime.offline", "runtime.model_zoo_base_path")


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the settings by which trainings would be others, such as `train.num_epochs: 1.0 -> 2.0`.

    Args:
        before: Values by path.
        now: The same of what is to go on.
    """
    paths = sorted({*before, *now} - {*_MAY_DIFFER})
    return [f"{path}: {before.get(path)!r} -> {now.get(path)!r}" for path in paths if before.get(path) != now.get(path)]


def result_of(command: Sequence[str], what: str) -> dict[str, Any]:
    """Runs a command and returns the JSON object on the last line of its stdout.

    Args:
        command: Command and arguments.
        what: What it is, for a message.

    Raises:
        EasyTransferError: What it ended with.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
        kind = BY_EXIT_CODE.get(done.returncode, EasyTransferError)
        raise kind(told[-1] if told else f"{what} ended with code {done.returncode}: {done.stderr}")
    found: dict[str, Any] = parse_json(done.stdout.strip().splitlines()[-1])
    return found


@dataclass
class TrialRun:
    """A trial on the disk and, while it runs, its process.

    Attributes:
        number: Number of the trial.
        folder: Its run folder.
        process: Its process; None before it is started, and where an earlier start left it running.
        stopping: Why it was told to stop: `pruned`, `interrupted`; empty if it was not.
    """

    number: int
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    stopping: str = ""

    @property
    def config(self) -> Path:
        """The configuration that `train --config` was given."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def log(self) -> Path:
        """What the training wrote to stderr, of all its starts."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def write_config(self, config: JobConfig) -> None:
        """Writes the configuration of the training."""
        values = config.model_copy(update={"checkpoint_dir": str(self.folder)})
        write_json(self.config, dump(values, "train"))

    def start(self, program: Sequence[str], parallel: int) -> None:
        """Starts or continues the training; a resumed run goes on from its last checkpoint.

        Args:
            program: Command that takes the arguments of `easy_transfer_app`.
            parallel: How many trials share the processors and devices.
        """
        import fcntl

        with open(self.log, "ab") as log:
            # The process inherits the lock and holds it until its end, whatever becomes of the study.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.process = subprocess.Popen(
                [*program, "train", "--config", str(self.config)],
                env={**_shares(parallel), **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                # A Ctrl-C reaches the study alone, which tells its trials to save.
                start_new_session=True,
            )

    def stop(self, why: str) -> None:
        """Tells the training to save and leave."""
        self.stopping = why
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def ended(self) -> bool:
        """Returns whether no process works on it: neither our own, nor one of an earlier start of the study."""
        return self.process.poll() is not None if self.process is not None else not self._is_held()

    def is_done(self) -> bool:
        """Returns whether the training is complete."""
        return RunFolder(self.folder).status == "done"

    def evaluations(self, metric: str) -> list[float]:
        """Returns the metric of each evaluation so far."""
        if not self.folder.is_dir():
            return []
        records = [record for record in read_history(self.folder) if record["event"] == "evaluation"]
        return [float(record[metric]) for record in records if record.get(metric) is not None]

    def result(self) -> dict[str, Any]:
        """Returns `report.json` of the complete run."""
        found: dict[str, Any] = RunFolder(self.folder).read_json(REPORT_FILE)
        return found

    def failure(self) -> str:
        """Returns the last line of the log that says what went wrong, else the last line."""
        lines = self._log_end().splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        code = None if self.process is None else self.process.returncode
        return next(reversed(told or lines), "") or f"the training ended with code {code} and no message"

    def _is_held(self) -> bool:
        """Returns whether a process of an earlier start still writes the log."""
        import fcntl

        if not self.log.is_file():
            return False
        with open(self.log, "ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _log_end(self) -> str:
        if not self.log.is_file():
            return ""
        with open(self.log, "rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_BYTES))
            return file.read().decode("utf-8", errors="replace").strip()


def _shares(parallel: int) -> dict[str, str]:
    """Returns the variables by which trials that run at the same time share processors and the memory of devices."""
    if parallel == 1:
        return {}
    share = str(max(1, len(os.sched_getaffinity(0)) // parallel)) if hasattr(os, "sched_getaffinity") else "1"
    return {"TF_NUM_INTRAOP_THREADS": share, "OMP_NUM_THREADS": share, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
