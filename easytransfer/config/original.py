"""Translation of the original EasyTransfer's JSON configuration to the present model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from easytransfer.errors import ConfigError, closest

_log = logging.getLogger("easytransfer.config")

ORIGINAL_SECTIONS = (
    "preprocess_config",
    "model_config",
    "train_config",
    "evaluate_config",
    "predict_config",
    "export_config",
)
# The learning rate an original JSON file means when it names none; the command line's default is another one.
ORIGINAL_JSON_LEARNING_RATE = 0.001

_COMMON = {
    "worker_hosts": "distribution.worker_hosts",
    "task_index": "distribution.task_index",
    "job_name": "distribution.job_name",
    "num_gpus": "distribution.worker_gpu",
    "num_workers": "distribution.worker_count",
    "modelZooBasePath": "runtime.model_zoo_base_path",
    "shuffle_buffer_size": "data.shuffle_buffer_size",
    "init_checkpoint_path": "train.init_checkpoint_path",
    "export_best_checkpoint": "train.export_best_checkpoint",
    "export_best_checkpoint_metric": "train.metric_for_best",
    "preprocess_config.input_schema": "data.input_schema",
    "preprocess_config.first_sequence": "data.first_sequence",
    "preprocess_config.second_sequence": "data.second_sequence",
    "preprocess_config.sequence_length": "data.sequence_length",
    "preprocess_config.label_name": "data.label_name",
    "preprocess_config.label_enumerate_values": "data.label_enumerate_values",
    "preprocess_config.append_feature_columns": "data.append_feature_columns",
    "preprocess_config.output_schema": "data.output_schema",
    "preprocess_config.max_predictions_per_seq": "data.max_predictions_per_seq",
    "preprocess_config.tokenizer_name_or_path": "data.tokenizer_name_or_path",
    "model_config.model_name": "model_name",
}
# Sections the platform adds to the original's form.
_ADDED = {
    **{f"runtime_config.{name}": f"runtime.{name}" for name in ("seed", "deterministic", "resume", "overwrite")},
    **{f"runtime_config.{name}": f"runtime.{name}" for name in ("mixed_precision", "enable_xla", "offline")},
    **{f"data_config.{name}": f"data.{name}" for name in ("bad_rows", "max_bad_rows", "no_truncate")},
    **{f"data_config.{name}": f"data.{name}" for name in ("delimiter", "header", "escape")},
    "logging_config.log_format": "runtime.log_format",
    "logging_config.log_step_count_steps": "train.log_step_count_steps",
}
_OPTIMIZER = {"optimizer": "train.optimizer_type"} | {
    name: f"train.{name}"
    for name in (
        "learning_rate",
        "weight_decay_ratio",
        "lr_decay",
        "warmup_ratio",
        "gradient_clip",
        "clip_norm_value",
        "num_freezed_layers",
    )
}
_DISTRIBUTION = {
    "distribution_strategy": "distribution.distribution_strategy",
    "enable_xla": "runtime.enable_xla",
    "num_accumulated_batches": "train.num_accumulated_batches",
    "pull_evaluation_in_multiworkers_training": "distribution.pull_evaluation_in_multiworkers_training",
}
_TRAIN = {
    "train_config.train_input_fp": "data.train_table",
    "train_config.train_batch_size": "train.batch_size",
    "train_config.model_dir": "checkpoint_dir",
    "train_config.num_epochs": "train.num_epochs",
    "train_config.save_steps": "train.save_checkpoint_steps",
    "train_config.throttle_secs": "train.throttle_secs",
    "train_config.keep_checkpoint_max": "train.keep_checkpoint_max",
    "train_config.log_step_count_steps": "train.log_step_count_steps",
    "train_config.shuffle_buffer_size": "data.shuffle_buffer_size",
    "train_config.init_checkpoint_path": "train.init_checkpoint_path",
    "evaluate_config.eval_input_fp": "data.eval_table",
    "evaluate_config.eval_batch_size": "train.eval_batch_size",
    "evaluate_config.num_eval_steps": "train.num_eval_steps",
    **{f"train_config.optimizer_config.{key}": path for key, path in _OPTIMIZER.items()},
    **{f"train_config.distribution_config.{key}": path for key, path in _DISTRIBUTION.items()},
}
# One original file holds the paths of several modes; each mode reads its own section.
_BY_MODE = {
    "train": _TRAIN,
    "evaluate": {
        "evaluate_config.eval_input_fp": "data.input_table",
        "evaluate_config.eval_batch_size": "train.batch_size",
        "evaluate_config.num_eval_steps": "train.num_eval_steps",
        "evaluate_config.eval_checkpoint_path": "checkpoint_path",
    },
    "predict": {
        "predict_config.predict_checkpoint_path": "checkpoint_path",
        "predict_config.predict_input_fp": "data.input_table",
        "predict_config.predict_output_fp": "data.output_table",
        "predict_config.predict_batch_size": "train.batch_size",
    },
    "export": {
        "export_config.checkpoint_path": "checkpoint_path",
        "export_config.export_dir_base": "export.export_dir_base",
    },
    "preprocess": {
        "preprocess_config.preprocess_input_fp": "data.input_table",
        "preprocess_config.preprocess_output_fp": "data.output_table",
        "preprocess_config.preprocess_batch_size": "train.batch_size",
    },
}
# Read by user-defined applications themselves, or settled by the platform: fusion and communication.
_SETTLED = {
    "train_config.distribution_config.num_model_replica",
    "train_config.distribution_config.num_communicators",
    "train_config.distribution_config.num_splits",
    "export_config.receiver_tensors_schema",
    "export_config.input_tensors_schema",
    "evaluate_config.eval_checkpoint_path",
}


def is_original(values: dict[str, Any]) -> bool:
    """Returns whether a loaded file is of the original's form: its sections, and no `schema_version`."""
    return "schema_version" not in values and any(key in values for key in (*ORIGINAL_SECTIONS, "_config_json"))


def from_original_json(
    original: dict[str, Any], mode: str = "train", warn: Callable[[str], None] = _log.warning
) -> dict[str, Any]:
    """Translates an original JSON configuration to nested values of the present model.

    Args:
        original: The parsed file; also the `train_config.json` of an original run folder.
        mode: Mode whose paths are taken; one file often holds those of several.
        warn: Called with one sentence per key that has no meaning here; published files carry stray keys.

    Returns:
        Nested values such as `{"model_name": ..., "data": {...}, "train": {...}}`; null keys are left out, which
        means the default.

    Raises:
        ConfigError: A section is no section, or a key is unknown in a file with `schema_version`.
    """
    # A stored run configuration repeats every key flat beside `_config_json`; the nested part is the complete one.
    values = original.get("_config_json", original)
    if not isinstance(values, dict):
        raise ConfigError("_config_json is a section of keys", received=values)
    for section in ORIGINAL_SECTIONS:
        if not isinstance(values.get(section, {}), dict):
            raise ConfigError(f"{section} is a section of keys", received=values[section])
    known = _COMMON | _ADDED | _BY_MODE[mode]
    elsewhere = {"schema_version"} | set(_SETTLED).union(*_BY_MODE.values())
    result: dict[str, Any] = {}
    for key, value in _flat(values):
        path = known.get(key)
        if path is None and key.startswith("model_config."):
            path = "model." + key.removeprefix("model_config.")
        if path is None:
            if key not in elsewhere:
                _stray(key, known.keys() | elsewhere, "schema_version" in values, warn)
        elif value is not None:
            put_setting(result, path, value)
    if mode == "train":
        result.setdefault("train", {}).setdefault("learning_rate", ORIGINAL_JSON_LEARNING_RATE)
    return result


def original_values(job: Any, mode: str) -> dict[str, Any]:
    """Returns the settings of a `JobConfig` by the names the original gives them in `mode`, without the model's own."""
    known = _COMMON | _ADDED | _BY_MODE["train" if mode == "train_and_evaluate" else mode]
    result = {}
    for key, path in known.items():
        section, _, name = path.rpartition(".")
        place = getattr(job, section) if section else job
        if section != "model" and path != "data.append_feature_columns":
            result[key.rpartition(".")[2]] = getattr(place, name)
    return result


def _stray(key: str, known: set[str], strict: bool, warn: Callable[[str], None]) -> None:
    name, by_name = key.rpartition(".")[2], {path.rpartition(".")[2]: path for path in sorted(known)}
    near = [by_name[name]] if name in by_name else [by_name[found] for found in closest(name, by_name, 1)]
    hint = f"did you mean {near[0]}?" if near else None
    if strict:
        raise ConfigError(f"unknown key {key}", fix=hint)
    warn(f"key {key} of the original configuration has no meaning here and is ignored" + (f"; {hint}" if hint else ""))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key == "label_enumerate_values" and isinstance(value, dict):
            # Names with their ids, another form the original takes.
            if not all(isinstance(number, int) for number in value.values()):
                raise ConfigError(f"{prefix}{key} needs a number for each label", received=value)
            yield prefix + key, ",".join(sorted(value, key=value.__getitem__))
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def put_setting(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value at a dotted path in nested sections, which are made where they are missing.

    Raises:
        ConfigError: A section on the way is a value.
    """
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{section} in {path} is a value, not a section", received=values)
    values[name] = value
