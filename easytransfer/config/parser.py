"""Command lines of verbs that run no job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from easytransfer.errors import ConfigError, did_you_mean


class Parser(argparse.ArgumentParser):
    """argparse with our error form instead of its own exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Parses all arguments.

        Raises:
            ConfigError: For anything unknown, missing or wrong, with the nearest option.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            raise ConfigError(
                f"{self.prog}: unknown argument",
                received=unknown[0],
                fix=did_you_mean(unknown[0].split("=")[0], self._options()) or f"see {self.prog} --help",
            )
        return vars(options)

    def _options(self) -> list[str]:
        """Lists the options of this parser and of its commands."""
        names = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names += [name for parser in action.choices.values() for name in parser._options()]
        return sorted(set(names))

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError."""
        raise ConfigError(f"{self.prog}: {message}", fix=f"see {self.prog} --help")
