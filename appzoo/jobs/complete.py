"""A training that is started again after it has ended: there is nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easytransfer.config.job import JobConfig
from easytransfer.config.stored import run_settings
from easytransfer.data.files import table_records
from easytransfer.run.folder import REPORT_FILE, RunFolder
from easytransfer.savedmodel.loading import find_exported, is_exported

# Settings that the comparison of a run with its continuation leaves out, and that ask for more than is there.
_FURTHER = (lambda values: values["train"]["num_epochs"], lambda values: values["export"])


def finished_report(config: JobConfig) -> dict[str, Any] | None:
    """Returns the report of a run that this very job has finished, None where there is something to do.

    A run whose export is gone gets one again.

    Raises:
        ConfigError: The folder holds another run, or its tables have changed, see `RunFolder.plan`.
    """
    folder = RunFolder(config.checkpoint_dir)
    if config.runtime.overwrite or folder.status != "done":
        return None
    plan = folder.plan(**run_settings(config), inputs=table_records(config))
    # A run may go on for more epochs, and its export have other settings.
    wanted = config.model_dump(mode="json")
    changed = folder.changed or any(get(folder.config) != get(wanted) for get in _FURTHER)
    report = folder.read_json(REPORT_FILE, default={})
    # Both are looked for in the folder, which may have been moved.
    export, weights = folder.path / "export" / str(config.model_name), folder.path / Path(report["checkpoint"]).name
    if plan != "resume" or changed or not (is_exported(export) and weights.exists()):
        return None
    earlier = {"checkpoint_step": report["step"], "steps": report["step"], "commands": {}, "pages": [], "pictures": []}
    return {**earlier, **report, "export": str(find_exported(export)), "checkpoint": str(weights)}
