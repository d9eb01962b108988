"""A training that is started again after it has ended: there is nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easytransfer.config.job import JobConfig
from easytransfer.export.loading import find_exported, is_exported
from easytransfer.run.atomic import sha256
from easytransfer.run.environment import input_files
from easytransfer.run.folder import REPORT_FILE, RUN_FILE, RunFolder

# Settings that the comparison of a run with its continuation leaves out, and that ask for more than is there.
_FURTHER = (lambda values: values["train"]["num_epochs"], lambda values: values["export"])


def finished_report(config: JobConfig) -> dict[str, Any] | None:
    """Returns the report of a run that this very job has finished, None where there is something to do.

    A run whose export is gone gets one again, and one whose tables have changed is left to the training to judge.

    Raises:
        ConfigError: The folder holds another run, see `RunFolder.plan`.
    """
    settings, folder = config.runtime, RunFolder(config.checkpoint_dir)
    if settings.overwrite or folder.status != "done":
        return None
    wanted = config.model_dump(mode="json")
    plan = folder.plan(wanted, resume=settings.resume)
    # A run may go on for more epochs, and its export have other settings.
    changed = folder.changed or any(get(folder.config) != get(wanted) for get in _FURTHER)
    report, record = (folder.read_json(name, default={}) for name in (REPORT_FILE, RUN_FILE))
    tables = input_files((config.data.train_table, config.data.eval_table))
    hashes = [entry["sha256"] for entry in record.get("inputs", [])]
    # Both are looked for in the folder, which may have been moved.
    export, weights = folder.path / "export" / str(config.model_name), folder.path / Path(report["checkpoint"]).name
    there = is_exported(export) and weights.exists()
    if plan != "resume" or changed or not there or hashes != [sha256(table) for table in tables]:
        return None
    return {**report, "export": str(find_exported(export)), "checkpoint": str(weights)}
