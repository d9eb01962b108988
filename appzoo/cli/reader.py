"""From a command line to a checked job configuration: defaults, stored run, file, `--set`, flags, in this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from appzoo import discovery
from appzoo.cli.text import OWN_FLAGS, help_text
from easytransfer.config.advanced import parse_advanced, resolve_advanced
from easytransfer.config.draft import Draft
from easytransfer.config.fields import settings_of
from easytransfer.config.files import load_file, parse_override, take_mode
from easytransfer.config.flags import FlagTable, Given, flag_value, split_flags
from easytransfer.config.job import NO_CLASSES, JobConfig
from easytransfer.config.original import from_original_json, is_original
from easytransfer.config.paths import user_path
from easytransfer.config.schema import MODES, ConfigModel
from easytransfer.config.stored import has_run_config, inherited, load_run_config
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.label_names import label_column
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, DataError, ModelError, did_you_mean
from easytransfer.presets import catalogue, default_zoo, hub
from easytransfer.presets import resolve as resolve_preset
from easytransfer.run import log

Model = TypeVar("Model", bound=ConfigModel)
STORED_MODES = ("evaluate", "predict", "export")
# What a preprocess job without an application encodes as, given a tokenizer alone; same as the original.
PREPROCESS_APPLICATION = "text_classify_bert"
# These are started as they are given.
_PROGRAMS = ("distribution.hosts_script", "distribution.remote_shell")
_TABLE_FORM = "--inputTable=train, or --inputTable=train,eval (two tables, one comma)"


@dataclass
class Job:
    """What a command line asks for.

    Attributes:
        mode: One of the five modes.
        config: Checked configuration of the application's own type.
        dump: Where to write the configuration instead of running; empty for stdout, None to run.
        given: Dotted paths the user set, each with the flag or file it came from.
    """

    mode: str
    config: JobConfig
    dump: str | None
    given: dict[str, str] = field(default_factory=dict)


def canonical_mode(name: str) -> str:
    """Returns the mode of a verb, a `--mode` value, or a mode name of an original JSON job.

    Raises:
        ConfigError: If there is no such mode.
    """
    mode = name.removesuffix("_on_the_fly")
    mode = "train" if mode == "train_and_evaluate" else mode
    if mode not in MODES:
        raise ConfigError("unknown mode", received=name, accepted=MODES, fix=did_you_mean(name, MODES))
    return mode


def read_settings(
    config_class: type[Model], given: Sequence[Given], own_flags: Sequence[str], mode: str | None = None
) -> Model:
    """Returns the configuration of a command that is not a job: defaults, `--config`, `--set`, flags, in this order.

    Args:
        config_class: Its configuration model.
        given: The flags.
        own_flags: Flags of the command itself.
        mode: Mode whose settings have a meaning here; all have one when None.

    Raises:
        ConfigError: A flag is unknown, given twice, or has a wrong value.
    """
    draft, table = Draft(), FlagTable(config_class, own_flags)
    for flag in given:
        if flag.name == "config":
            draft.update(load_file(flag.text()), flag.text())
    for flag in given:
        if flag.name == "set":
            path, value = parse_override(flag.text())
            draft.put(path, value, f"--set {path}")
    seen: set[str] = set()
    for flag in given:
        if flag.name in own_flags:
            continue
        setting = table.find(flag.name)
        if setting is None:
            raise table.unknown(flag.name)
        if setting.path in seen:
            raise ConfigError(f"--{flag.name} is given twice")
        seen.add(setting.path)
        if mode is None or setting.applies(mode):
            draft.put(setting.path, flag_value(flag, setting), f"--{flag.name}")
        else:
            log.warn(f"--{flag.name} has no meaning here and is ignored")
    return draft.build(config_class)


class JobReader:
    """Reads one job command line.

    Args:
        verb: Mode given as a verb, or None when `--mode` gives it.
        arguments: Everything after the verb.
        notes: Receives warnings, one sentence each.
    """

    def __init__(self, verb: str | None, arguments: Sequence[str], notes: list[str]) -> None:
        self.notes = notes
        self.options: dict[str, Given] = {}
        self.sets: list[str] = []
        self.flags: list[Given] = []
        for given in split_flags(arguments):
            name = "advancedParameters" if given.name == "advanced_parameters" else given.name
            if name == "set":
                self.sets.append(given.text())
            elif name not in OWN_FLAGS:
                self.flags.append(given)
            elif name in self.options:
                raise ConfigError(f"--{name} is given twice")
            else:
                self.options[name] = given
        modes = {canonical_mode(name) for name in (verb, self._option("mode")) if name is not None}
        if len(modes) > 1:
            raise ConfigError("the verb and --mode differ", received=f"{verb} and {self._option('mode')}")
        self.mode: str | None = modes.pop() if modes else None
        self.draft = Draft()
        self.stored: dict[str, Any] = {}

    def _option(self, name: str) -> str | None:
        return self.options[name].text() if name in self.options else None

    def read(self) -> Job:
        """Returns the checked job.

        Raises:
            ConfigError: For the first thing that is wrong, in the words of the user's input.
            ModelError: If the stored configuration of a checkpoint is missing or damaged.
        """
        self._read_file()
        if self.mode is None:
            raise ConfigError("no mode is given", accepted=MODES, fix="easy_transfer_app train ... or --mode train ...")
        for text in self.sets:
            path, value = parse_override(text)
            self.draft.put(path, value, f"--set {path}")
        self._split_train_tables()
        unknown = self._put_flags(FlagTable(JobConfig, OWN_FLAGS), self.flags)
        self.draft.expand_paths(settings_of(JobConfig))
        try:
            self._inherit()
            config_class = self._config_class()
        except ConfigError:
            # A misspelt --modelName is best reported as the unknown flag it is.
            if unknown:
                raise FlagTable(JobConfig, OWN_FLAGS).unknown(unknown[0].name) from None
            raise
        table = FlagTable(config_class, OWN_FLAGS)
        for given in self._put_flags(table, unknown):
            if config_class is JobConfig:
                discovery.check_named({}, [given.name])
            raise table.unknown(given.name)
        self._put_advanced(config_class)
        given = dict(self.draft.origins)
        self._check_programs()
        self._check_labels()
        self.draft.fill(self.stored, "the stored configuration")
        self._name_tokenizer(config_class)
        dump = self.options.get("configDump")
        config = self._with_label_column(self.draft.build(config_class))
        self._note_empty_labels(config, given)
        return Job(self.mode, config, None if dump is None else dump.value or "", given)

    def help(self) -> str:
        """Returns the help for the mode and application the command line names, or for all."""
        name = next((given.value for given in self.flags if given.name in ("modelName", "model_name")), None)
        return help_text(discovery.config_class(name) if name else JobConfig, self.mode)

    def _read_file(self) -> None:
        """Puts the values of `--config`; the file may also name the mode."""
        path = self._option("config")
        if path is None:
            return
        values = load_file(path)
        mode = take_mode(values, path)
        self.mode = self.mode or mode
        if is_original(values) and self.mode is not None:
            values = from_original_json(values, self.mode, self.notes.append)
        self.draft.update(values, path)

    def _split_train_tables(self) -> None:
        """Lets `data.input_table: train,eval` of a file or `--set` stand for the two tables of training."""
        if self.mode != "train":
            return
        origin = self.draft.origins.get("data.input_table", "")
        value = self.draft.take("data.input_table")
        if value is None:
            return
        both = isinstance(value, list) or "," in str(value)
        for path in ("data.train_table", *(["data.eval_table"] if both else [])):
            if self.draft.get(path) is not None:
                raise ConfigError(f"data.input_table and {path} are both given", fix="give one of them")
        self._put_tables(value, origin)

    def _put_tables(self, value: Any, origin: str) -> None:
        parts = [str(part).strip() for part in (value if isinstance(value, list) else str(value).split(","))]
        if len(parts) > 2 or not all(parts):
            raise ConfigError(
                f"{origin} in train needs a training table, or one and an evaluation table",
                received=value,
                accepted=_TABLE_FORM,
            )
        for path, part in zip(("data.train_table", "data.eval_table"), parts, strict=False):
            self.draft.put(path, part, origin)

    def _put_flags(self, table: FlagTable, flags: list[Given]) -> list[Given]:
        """Puts the flags the table knows and returns the others."""
        unknown = []
        seen: dict[str, str] = {}
        for given in flags:
            setting = table.find(given.name)
            if setting is None:
                unknown.append(given)
                continue
            if setting.path in seen:
                raise ConfigError(
                    f"--{seen[setting.path]} is given twice"
                    if seen[setting.path] == given.name
                    else f"--{seen[setting.path]} and --{given.name} set the same value"
                )
            seen[setting.path] = given.name
            value = flag_value(given, setting)
            if not setting.applies(str(self.mode)):
                self.notes.append(f"--{given.name} has no meaning in mode {self.mode} and is ignored")
            elif setting.path == "data.input_table" and self.mode == "train":
                self._put_tables(value, f"--{given.name}")
            else:
                self.draft.put(setting.path, value, f"--{given.name}")
        return unknown

    def _inherit(self) -> None:
        """Finds the stored run configuration that evaluation, prediction and export start from."""
        if self.mode not in (*STORED_MODES, "preprocess"):
            return
        name = self.draft.get("model_name")
        if name and str(name).startswith("modelhub:") and self.mode != "preprocess":
            zoo = user_path(str(self.draft.get("runtime.model_zoo_base_path") or default_zoo()))
            self.draft.put("checkpoint_path", str(zoo / "modelhub" / str(name).partition(":")[2]), "--modelName")
            self.draft.take("model_name")
        path = self.draft.get("checkpoint_path")
        # Conversions and vectors may read a pre-trained model, which has no configuration of ours.
        kind = str(self.draft.get("export.export_type") or "")
        if not path or (kind.startswith(("convert_", "ez_bert_feat")) and not has_run_config(path)):
            return
        self.stored = inherited(load_run_config(path))
        name, stored_name = self.draft.take("model_name"), self.stored.get("model_name")
        if name and name != stored_name:
            self.notes.append(f"modelName {name} is ignored: {path} was trained as {stored_name}")

    def _config_class(self) -> type[JobConfig]:
        name = self.draft.get("model_name") or self.stored.get("model_name")
        if not name:
            # Required flags are checked later, all with one message form.
            discovery.check_named(self.draft.origins)
            return JobConfig
        try:
            return discovery.config_class(str(name))
        except ConfigError:
            if self.mode != "preprocess" or not _is_tokenizer(str(name), self.draft):
                raise
        self.draft.put("data.tokenizer_name_or_path", name, self.draft.origins["model_name"])
        self.draft.put("model_name", PREPROCESS_APPLICATION, self.draft.origins["model_name"])
        return discovery.config_class(PREPROCESS_APPLICATION)

    def _put_advanced(self, config_class: type[JobConfig]) -> None:
        """Puts the keys of `--advancedParameters`; a flag for the same field wins, as in the original."""
        text = self._option("advancedParameters")
        if text is None:
            return
        if self.mode == "train" and not self.draft.get("model_name"):
            # The keys of an application nobody named are all unknown; that is not what is wrong.
            raise ConfigError("mode train needs --modelName", fix="`easy_transfer_app apps` lists the applications")
        for path, (key, setting, value) in resolve_advanced(parse_advanced(text), config_class, str(self.mode)).items():
            origin = self.draft.origins.get(path, "")
            if origin.startswith("--") and not origin.startswith("--set"):
                self.notes.append(f"--advancedParameters key {key} is ignored: {origin} sets the same value")
            else:
                self.draft.put(path, value, f"--advancedParameters key {setting.name}")

    def _check_programs(self) -> None:
        """Refuses settings that start a program where a file gives them: who reads a file does not mean to run it."""
        defaults = {setting.path: setting.default for setting in settings_of(JobConfig) if setting.path in _PROGRAMS}
        for path, default in defaults.items():
            origin = self.draft.origins.get(path, "--set")
            if not origin.startswith("--set") and self.draft.get(path) != default:
                raise ConfigError(
                    f"{path} in {origin} names a program, which only the command line may",
                    received=self.draft.get(path),
                    fix=f"give it with --set {path}=...",
                )

    def _check_labels(self) -> None:
        """Refuses a label list at prediction that is not the one of the training, since ids would change meaning."""
        given, path = self.draft.get("data.label_enumerate_values"), self.draft.get("checkpoint_path")
        if not given or not path or self.mode not in STORED_MODES or given == "auto":
            return
        folders = (Path(str(path)), Path(str(path)).parent)
        trained = next((found for folder in folders if (found := LabelMap.load(folder)) is not None), None)
        names = [] if given == NO_CLASSES else LabelMap.parse(str(given), Counter).names
        if trained is not None and names != trained.names:
            raise ConfigError(
                f"{self.draft.origins['data.label_enumerate_values']} differs from the labels of the training",
                received=",".join(names[:12]) or given,
                accepted=trained.describe(),
                fix="leave it out: the stored labels are used",
            )

    def _note_empty_labels(self, config: JobConfig, given: dict[str, str]) -> None:
        """Tells of an empty label list, which may be a shell variable that is not set."""
        path = "data.label_enumerate_values"
        classes = (getattr(config.model, "num_labels", None) or 1) > 1
        # A trained run has its own list.
        if path in given and self.draft.get(path) in ("", []) and not (config.checkpoint_path or classes):
            self.notes.append("labelEnumerateValues is empty: the training table says what its labels are")

    def _with_label_column(self, config: JobConfig) -> JobConfig:
        """Returns the configuration of a training with the label column that its table has, where none is named."""
        wanted = any(item.path == "data.label_name" and "T" in item.required for item in settings_of(type(config)))
        data, table = config.data, config.training_tables()
        known = data.label_name is not None or data.input_schema is not None
        if self.mode != "train" or not config.model_name or not wanted or known or table is None:
            return config
        try:
            names = open_table(table, schema=None, data=data, bad_rows=BadRows("skip")).schema.names
        except (ConfigError, DataError):  # told where tables are checked
            return config
        found = label_column(names)
        if found is None:
            return config
        log.say(f"labels: the column {found!r} of {table}")
        return config.model_copy(update={"data": data.model_copy(update={"label_name": found})})

    def _name_tokenizer(self, config_class: type[JobConfig]) -> None:
        """Lets the tokenizer of a preprocess job stand where the application looks for it."""
        name, path = self.draft.get("data.tokenizer_name_or_path"), "model.pretrain_model_name_or_path"
        known = {setting.path for setting in settings_of(config_class)}
        if self.mode == "preprocess" and name and path in known and path not in self.draft.origins:
            self.draft.put(path, name, self.draft.origins["data.tokenizer_name_or_path"])


def _is_tokenizer(name: str, draft: Draft) -> bool:
    """Returns whether a preprocess `modelName` is a folder or a ModelZoo name rather than an application."""
    try:
        resolve_preset(name, str(draft.get("runtime.model_zoo_base_path") or ""))
    except ModelError:
        # A known model that is not on this machine has the better message of the two.
        if catalogue.find(name) is not None or name.startswith(hub.SCHEME):
            raise
        return False
    return True
