"""Whether two configurations describe the same training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Settings that may differ between a run and its continuation: length, logging, place and devices.
COMPARED_WITHOUT = (
    "checkpoint_dir",
    "checkpoint_path",
    "data.table_memory_mb",
    "data.cache_dir",
    "data.slice_columns",
    "train.num_epochs",
    "train.log_step_count_steps",
    "train.keep_checkpoint_max",
    "runtime.resume",
    "runtime.overwrite",
    "runtime.log_format",
    "runtime.dry_run",
    "runtime.offline",
    "runtime.model_zoo_base_path",
    "distribution.distribution_strategy",
    "distribution.worker_hosts",
    "distribution.worker_gpu",
    "distribution.worker_cpu",
    "distribution.task_index",
    "distribution.job_name",
    "export",
    "tracking",
)


def config_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Returns `(old, new)` by dotted key for settings that matter to a continued run and differ.

    Args:
        old: Stored configuration as JSON types.
        new: Configuration of this run as JSON types.
        defaults: Values that settings had before there was a setting: what an older run does not name.
        prefix: Dotted path of both inside their configuration.
    """
    found: dict[str, tuple[Any, Any]] = {}
    defaults = defaults or {}
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        before, after = old.get(key, defaults.get(key)), new.get(key)
        if path in COMPARED_WITHOUT or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= config_differences(before, after, defaults.get(key), path + ".")
        else:
            found[path] = (before, after)
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the settings of a configuration by dotted path."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
