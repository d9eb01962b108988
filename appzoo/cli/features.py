"""The command `ez_bert_feat`: vectors of an encoder for every row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import easytransfer
from appzoo.cli.checks import check_columns, check_outputs, value_at
from appzoo.cli.main import dump_config, guarded
from appzoo.cli.reader import read_settings
from appzoo.cli.text import features_help
from appzoo.feature_config import FeatureConfig, parse_layers
from easytransfer.config.fields import settings_of
from easytransfer.config.files import dump
from easytransfer.config.flags import Given, split_flags
from easytransfer.config.stored import has_run_config
from easytransfer.errors import ConfigError
from easytransfer.run import log
from modelzoo.hub import obtain

MODE = "predict"
# Flags of the command itself.
OWN_FLAGS = ("config", "set", "configDump", "debug", "help", "version")
REQUIRED = ("data.input_table", "data.output_table", "data.first_sequence", "model_name")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit code; results go to stdout, everything else to stderr.

    Args:
        argv: Arguments without the program name; those of the process when None.
    """
    return guarded(run, argv)


def run(arguments: list[str]) -> int:
    """Runs one command line; raises what goes wrong."""
    given = split_flags(["--help" if argument == "-h" else argument for argument in arguments])
    options = {flag.name: flag for flag in given if flag.name in OWN_FLAGS}
    if "version" in options:
        log.print_result(easytransfer.__version__)
        return 0
    if "help" in options or not given:
        log.print_result(features_help(FeatureConfig, MODE, REQUIRED))
        return 0 if given else ConfigError.exit_code
    config = read(given)
    if "configDump" in options:
        return dump_config(dump(config), options["configDump"].value or "")
    log.setup_logging(config.runtime.log_format)
    check(config)
    # Importing the job imports TensorFlow, so it comes after all checks.
    with log.results_only_stdout() as stdout:
        from appzoo.jobs import extract_features

        log.print_result(extract_features(config), stdout)
    return 0


def read(given: list[Given]) -> FeatureConfig:
    """Returns the configuration of a command line, see `read_settings`."""
    return read_settings(FeatureConfig, given, OWN_FLAGS, MODE)


def check(config: FeatureConfig) -> None:
    """Checks all that needs no model.

    Raises:
        ConfigError: A required flag is missing, a column is not declared, or the output exists.
        DataError: The input table does not exist.
        ModelError: The model is not on this machine.
    """
    shown = {setting.path: setting.shown for setting in settings_of(FeatureConfig)}
    missing = [shown[path] for path in REQUIRED if not value_at(config, path)]
    if missing:
        raise ConfigError(f"ez_bert_feat needs {', '.join(missing)}", fix="see ez_bert_feat --help")
    parse_layers(config.features.layers)
    config.distribution.workers()
    data = config.data
    columns = {"firstSequence": data.first_sequence, "secondSequence": data.second_sequence}
    check_columns([str(data.input_table)], columns, data, append=True)
    check_outputs(MODE, config)
    name = str(config.model_name)
    if not (has_run_config(name) or Path(name).is_dir()):
        obtain(name, config.runtime.model_zoo_base_path, offline=config.runtime.offline)
