"""JSON configuration of a user-defined application, in the original's form or the present one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easytransfer.config.draft import Draft
from easytransfer.config.job import JobConfig
from easytransfer.config.original import ORIGINAL_SECTIONS, from_original_json, original_values, put_setting
from easytransfer.config.paths import user_path
from easytransfer.config.stored import RUN_CONFIG, find_run_config, load_run_config
from easytransfer.errors import ConfigError, ModelError, did_you_mean
from easytransfer.run.log import warn

ON_THE_FLY = "_on_the_fly"
_KINDS = ("train", "train_and_evaluate", "evaluate", "predict")
MODES = (*_KINDS, *(kind + ON_THE_FLY for kind in _KINDS), "export", "preprocess")

_OUTPUT_ALIASES = {
    "bert_finetune": "input_ids,input_mask,segment_ids,label_id",
    "bert_pretrain": "input_ids,input_mask,segment_ids,masked_lm_positions,masked_lm_ids,masked_lm_weights",
    "bert_predict": "input_ids,input_mask,segment_ids",
}
# Attributes of a configuration that no parameter of a model can have.
_TAKEN = {"mode", "kind", "job", "model_config", "append_columns", "on_the_fly"}


class _Mode(str):
    """A mode of a model function that also equals the original's name for it."""

    def __new__(cls, name: str, old: str) -> _Mode:
        mode = super().__new__(cls, name)
        mode.old = old
        return mode

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) or other == self.old

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class ModeKeys:
    """What `build_logits` gets as `mode`; each equals its name and the name it had in TensorFlow 1.

    Example:
        >>> ModeKeys.PREDICT == "predict", ModeKeys.PREDICT == "infer"
        (True, True)
    """

    TRAIN = _Mode("train", "train")
    EVAL = _Mode("eval", "eval")
    PREDICT = _Mode("predict", "infer")


def is_present_form(values: Mapping[str, Any]) -> bool:
    """Returns whether a configuration has the sections of `JobConfig` rather than the original's."""
    return not any(key in values for key in ORIGINAL_SECTIONS) and any(key in values for key in JobConfig.model_fields)


def kind_of(mode: str) -> str:
    """Returns the job a mode means: the mode without `_on_the_fly`."""
    return mode.removesuffix(ON_THE_FLY)


class Config:
    """A configuration and the mode to run it in; every key is an attribute, as in the original.

    Keys that are not given have the value they mean, mostly None. `job` holds the same settings in the present form.

    Args:
        mode: One of `MODES`.
        config_json: Content of the JSON file: the original's sections, or the present form with `schema_version` 2.
        flags: Settings that replace those of the file: value and flag by dotted path, such as `train.batch_size`.

    Raises:
        ConfigError: The mode is unknown, or a key or value is wrong.

    Example:
        >>> Config("train", {"train_config": {"train_input_fp": "a.tsv", "train_batch_size": 8}}).train_batch_size
        8
    """

    def __init__(
        self, mode: str, config_json: Mapping[str, Any], flags: Mapping[str, tuple[Any, str]] | None = None
    ) -> None:
        if mode not in MODES:
            raise ConfigError("unknown mode", received=mode, accepted=MODES, fix=did_you_mean(str(mode), MODES))
        self.mode = mode
        self.kind = kind_of(mode)
        values = _copied(config_json)
        values.pop("mode", None)
        if is_present_form(values):
            settings = _copied(values)
        else:
            settings = from_original_json(values, "train" if self.kind == "train_and_evaluate" else self.kind, warn)
        for path, (value, _) in (flags or {}).items():
            put_setting(settings, path, value)
        self.model_config: dict[str, Any] = self._stored_model(settings) or settings.get("model", {})
        if taken := sorted(self.model_config.keys() & _TAKEN):
            raise ConfigError(f"model_config.{taken[0]} is a name the application needs itself", fix="rename the key")
        settings.pop("model", None)
        self.append_columns = _names(settings.get("data", {}).pop("append_feature_columns", None))
        draft = Draft()
        draft.update(settings, "the configuration")
        draft.origins |= {path: origin for path, (_, origin) in (flags or {}).items()}
        self.job: JobConfig = draft.build(JobConfig)
        # Stray keys are attributes too: published applications read some of them.
        own = vars(self).copy()
        self.__dict__.update({**_leaves(values), **original_values(self.job, self.kind), **self.model_config, **own})
        self.append_feature_columns = ",".join(self.append_columns) or None
        self.eval_ckpt_path = getattr(self, "eval_checkpoint_path", None)
        self.output_schema = _OUTPUT_ALIASES.get(self.job.data.output_schema, self.job.data.output_schema)

    @property
    def on_the_fly(self) -> bool:
        """Whether rows are raw text that is encoded while it is read: by the mode, or because the text column is."""
        data = self.job.data
        declared = data.input_schema is None or f"{data.first_sequence}:str" in data.input_schema.replace(" ", "")
        return self.mode.endswith(ON_THE_FLY) or self.kind == "preprocess" or bool(data.first_sequence and declared)

    def _stored_model(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the model parameters a checkpoint was trained with, which are the ones its weights fit."""
        path = settings.get("checkpoint_path")
        if self.kind not in ("predict", "evaluate", "export") or not path:
            return None
        path = user_path(path)
        try:
            # An export says what was exported, with paths left out.
            of_run = find_run_config(path).name == RUN_CONFIG
            stored = (load_run_config(path).get("model") if of_run else None) or None
        except ModelError:
            return None  # No checkpoint yet, or one without a run; whoever reads it will say so.
        given = settings.get("model", {})
        for key in sorted(given.keys() & (stored or {}).keys()):
            if given[key] != stored[key]:
                warn(f"model_config.{key} is {stored[key]!r} as in {path}, not {given[key]!r}")
        return stored and {**given, **stored}


def label_folder(path: str | None) -> Path | None:
    """Returns the run folder a checkpoint belongs to, where its label list lies."""
    if not path:
        return None
    return next((p for p in (Path(path), Path(path).parent) if (p / "label_mapping.json").is_file()), None)


def _copied(values: Any) -> Any:
    return {key: _copied(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def _leaves(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value) if isinstance(value, dict) and key != "label_enumerate_values" else {key: value}
    return found


def _names(value: Any) -> tuple[str, ...]:
    """Returns the column names of a comma list or list; a declaration such as `domain:int:1` counts by its name."""
    parts = value.split(",") if isinstance(value, str) else list(value or [])
    return tuple(part.split(":")[0].strip() for part in parts if part.strip())
