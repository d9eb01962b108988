"""The verb `serve`: an exported model, or a folder of them, over REST and gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appzoo.cli import installation as parts
from appzoo.cli.reader import read_settings
from appzoo.cli.text import serving_help
from easytransfer.config.flags import split_flags
from easytransfer.errors import ConfigError
from easytransfer.run import log
from easytransfer.serving.settings import ServingConfig

OWN_FLAGS = ("config", "set", "debug", "help")


def serve(arguments: Sequence[str]) -> int:
    """Serves until it is told to stop; prints where, once it is ready, and what it did, at the end.

    Raises:
        ConfigError: A flag is unknown or has a wrong value.
        ModelError: There is nothing to serve.
        ResourceError: The packages of the extra are missing, or a port is taken.
    """
    given = list(arguments)
    if given and not given[0].startswith("-"):
        given[0] = f"--modelDir={given[0]}"
    flags = split_flags(["--help" if argument == "-h" else argument for argument in given])
    if any(flag.name == "help" for flag in flags):
        log.print_result(serving_help(ServingConfig))
        return 0
    config = read_settings(ServingConfig, flags, OWN_FLAGS)
    if config.model_dir is None:
        raise ConfigError("serve needs the folder of exported models", fix="type easy_transfer_app serve MODEL_DIR")
    if not Path(config.model_dir).is_dir():
        raise ConfigError("there is no such folder", received=config.model_dir, accepted="exported models")
    parts.check(["serving"])
    log.setup_logging(config.log_format)
    with log.results_only_stdout() as stdout:
        # Importing the server takes a moment, so it comes after all checks; SavedModels import TensorFlow.
        from appzoo.jobs.litert_requests import raw_caller
        from easytransfer.serving import server

        log.print_result(server.serve(config, lambda where: log.print_result(where, stdout), raw_caller), stdout)
    return 0
