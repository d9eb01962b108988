"""The flags of a script with an application of one's own: those of `easy_transfer_app` that mean something there."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from easytransfer.compat.config import MODES, Config, is_present_form, kind_of
from easytransfer.config.advanced import parse_advanced, resolve_advanced
from easytransfer.config.fields import Setting, settings_of
from easytransfer.config.files import load_file, parse_override
from easytransfer.config.flags import FlagTable, Given, flag_value, split_flags
from easytransfer.config.job import JobConfig
from easytransfer.config.json_text import parse_json
from easytransfer.errors import ConfigError
from easytransfer.run.log import print_result, warn

# Flags of the script itself, with their help; every other flag is a setting of the job.
OWN_FLAGS = {
    "config": "JSON configuration.",
    "mode": f"One of {', '.join(MODES)}.",
    "set": "One value by dotted path, such as train.num_eval_steps=5 or model.num_labels=3; may be repeated.",
    "advancedParameters": "Further settings: key=value pairs, a JSON object, or @file.json.",
    "debug": "Show the traceback of an error.",
    "help": "Show this help.",
}
# Settings of jobs that the command line runs and an application of one's own does not.
_NOT_HERE = {
    *("model_name", "runtime.dry_run", "data.append_cols", "data.merge", "data.unordered"),
    *("export.export_type", "export.variants", "export.flat"),
    *("distribution.distribution_strategy", "distribution.timeline", "distribution.autotune"),
}
# What `--tables` and `--outputs`, which are `--inputTable` and `--outputTable`, replace, by kind of job.
_TABLES = {
    "train": ("train_config.train_input_fp",),
    "train_and_evaluate": ("train_config.train_input_fp", "evaluate_config.eval_input_fp"),
    "evaluate": ("evaluate_config.eval_input_fp",),
    "predict": ("predict_config.predict_input_fp",),
    "preprocess": ("preprocess_config.preprocess_input_fp",),
}
_OUTPUTS = {
    "predict": "predict_config.predict_output_fp",
    "preprocess": "preprocess_config.preprocess_output_fp",
}
_SETTINGS = tuple(item for item in settings_of(JobConfig) if item.flag and item.path not in _NOT_HERE)
_BY_TABLES = ("data.input_table", "data.output_table", "data.train_table", "data.eval_table")


class CommandLine:
    """The flags of `python my_app.py`, read when first asked for; `easytransfer.FLAGS` is one.

    Its attributes are the flags and can be set, as scripts do with `FLAGS.mode`. A flag that is neither ours nor
    declared with `own` (or with `tf.app.flags`) is refused.

    Example:
        >>> flags = CommandLine()
        >>> flags.own("dropout", default=0.1, kind=float)
        >>> flags.read(["--mode=train", "--dropout=0.2"])
        >>> flags.mode, flags.dropout
        ('train', 0.2)
    """

    def __init__(self) -> None:
        self._read = False
        self._own: dict[str, tuple[Any, Callable[[str], Any]]] = {}

    def own(self, name: str, default: Any = None, kind: Callable[[str], Any] = str) -> None:
        """Declares a flag of the script's own, before the application is made.

        Args:
            name: The flag, without dashes; it becomes an attribute.
            default: Its value when it is not given.
            kind: Makes the value from the text, such as `int`.
        """
        if FlagTable(JobConfig).find(name) is not None or name in OWN_FLAGS:
            raise ConfigError(f"--{name} is a flag of EasyTransfer", fix="give the flag of the script another name")
        self._own[name] = (default, kind)

    def read(self, arguments: Sequence[str]) -> None:
        """Takes flags from `arguments` instead of `sys.argv`.

        Raises:
            ConfigError: A flag is unknown, given twice or without its value, or means nothing here.
        """
        values: dict[str, Any] = {name: None for item in _SETTINGS for name in item.names}
        values |= dict.fromkeys(OWN_FLAGS) | {name: default for name, (default, _) in self._own.items()}
        values["set"] = []
        table, seen = FlagTable(JobConfig, (*OWN_FLAGS, *self._own)), set()
        for given in split_flags(["--help" if argument == "-h" else argument for argument in arguments]):
            setting = table.find(given.name)
            place = given.name if setting is None else setting.path
            if place in seen and place != "set":
                raise ConfigError(f"--{given.name} is given twice")
            seen.add(place)
            if setting is None:
                self._put(values, given, table)
            elif setting.path in _NOT_HERE:
                raise ConfigError(f"--{given.name} has no meaning in an application of one's own")
            else:
                values |= dict.fromkeys(setting.names, _value(given, setting))
        if values["help"]:
            print_result(_help(self._own))
            raise SystemExit(0)
        self.__dict__.update(values, _read=True)

    def _put(self, values: dict[str, Any], given: Given, table: FlagTable) -> None:
        """Puts a flag that is no setting of the job."""
        if given.name == "set":
            values["set"].append(given.text())
        elif given.name in ("debug", "help"):
            values[given.name] = True
        elif given.name in OWN_FLAGS:
            values[given.name] = given.text()
        elif given.name in self._own:
            try:
                values[given.name] = self._own[given.name][1](given.text())
            except ValueError as error:
                raise ConfigError(f"wrong value for --{given.name}: {error}", received=given.value) from None
        elif not _of_absl(given.name):
            raise table.unknown(given.name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._read:
            raise AttributeError(f"there is no flag --{name}")
        self.read(sys.argv[1:])
        return getattr(self, name)

    def settings(self, kind: str) -> dict[str, tuple[Any, str]]:
        """Returns the settings that flags give for a kind of job: value and flag by dotted path.

        Raises:
            ConfigError: An advanced parameter is unknown, or an override is not readable.
        """
        mode, found = "train" if kind == "train_and_evaluate" else kind, {}
        for path, value in map(parse_override, self.set):
            found[path] = (_of_model(value) if path.startswith("model.") else value, f"--set {path}")
        advanced = resolve_advanced(parse_advanced(self.advancedParameters or ""), JobConfig, mode)
        for path, (key, _, value) in advanced.items():
            found[path] = (value, f"--advancedParameters key {key}")
        for item in _SETTINGS:
            value = next((value for name in item.names if (value := getattr(self, name)) is not None), None)
            if value is None or item.path in _BY_TABLES:
                continue
            if item.applies(mode):
                found[item.path] = (value, f"--{item.flag}")
            else:
                warn(f"--{item.flag} has no meaning in mode {kind} and is ignored")
        return found


FLAGS = CommandLine()


def command_line_config() -> Config:
    """Returns the configuration that the flags of the running script name, changed by the other flags.

    Raises:
        ConfigError: `--config` is missing, cannot be read or is wrong, or a flag is.
    """
    if not FLAGS.config:
        raise ConfigError("--config is missing", fix="name a JSON file, or give user_defined_config")
    values = load_file(FLAGS.config)
    mode = FLAGS.mode or values.pop("mode", None) or "train_and_evaluate"
    values.pop("mode", None)
    _put_tables(values, kind_of(mode), is_present_form(values))
    return Config(mode, values, FLAGS.settings(kind_of(mode)) if mode in MODES else None)


def _put_tables(values: dict[str, Any], kind: str, native: bool) -> None:
    """Writes `--tables` and `--outputs` over what the configuration says."""
    tables = [table.strip() for table in (FLAGS.tables or "").split(",") if table.strip()]
    places = _TABLES.get(kind, ())
    if native:
        places = ("data.train_table", "data.eval_table") if kind.startswith("train") else ("data.input_table",)
    if len(tables) > len(places):
        wanted = " and ".join(place.rpartition(".")[2] for place in places) or "none"
        raise ConfigError(f"--tables names too many tables for mode {kind}", received=FLAGS.tables, accepted=wanted)
    given = list(zip(places, tables, strict=False))
    if FLAGS.outputs:
        if kind not in _OUTPUTS:
            raise ConfigError(f"--outputs has no meaning in mode {kind}", accepted="predict, preprocess")
        given.append(("data.output_table" if native else _OUTPUTS[kind], FLAGS.outputs))
    for path, value in given:
        section, name = path.split(".")
        values.setdefault(section, {})[name] = value


def _value(given: Given, setting: Setting) -> Any:
    """Returns what an attribute holds: a number where the text is one, and else what the check of the job refuses."""
    value = flag_value(given, setting)
    return int(value) if setting.kind.startswith("int") and str(value).lstrip("-").isdecimal() else value


def _of_model(value: Any) -> Any:
    """Returns a parameter of a model, whose type no configuration declares, as a JSON file would give it."""
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _of_absl(name: str) -> bool:
    """Whether a script has defined a flag with `tf.app.flags`, which reads it itself."""
    absl = sys.modules.get("absl.flags")
    return absl is not None and name in absl.FLAGS


def _help(own: dict[str, Any]) -> str:
    lines = ["An EasyTransfer application defined in Python. Flags change what the configuration says.", ""]
    entries = [*OWN_FLAGS.items(), *((name, "A flag of this script.") for name in own)]
    entries += [(item.flag, f"{item.kind}. {item.text}") for item in _SETTINGS if item.path not in _BY_TABLES]
    entries += [("tables", "Input tables in place of those of the configuration.")]
    entries += [("outputs", "Output table in place of that of the configuration.")]
    for name, text in entries:
        lines += [f"  --{name}", *textwrap.wrap(text, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)]
    return "\n".join(lines)
