"""Errors a user can act on: one line that says what is wrong, what is accepted and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Characters of a received value that a message repeats.
MOST_SHOWN = 2000
_LONG_WORD = re.compile(rf"\S{{{MOST_SHOWN + 10},}}")


class EasyTransferError(Exception):
    """Base of every expected failure; the command line prints it and exits with `exit_code`.

    Args:
        what: What is wrong, with the place (file, flag, column) it was found in.
        received: The offending value, shown as given.
        accepted: The accepted values or form.
        fix: What to type or change.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        accepted: Iterable[str] | str | None = None,
        fix: str | None = None,
    ) -> None:
        parts = [what]
        if received is not None:
            shown = repr(received)
            parts.append(f"got {shown if len(shown) <= MOST_SHOWN else shown[:MOST_SHOWN] + '...'}")
        if accepted is not None:
            text = accepted if isinstance(accepted, str) else ", ".join(accepted)
            parts.append(f"accepted: {text}")
        if fix:  # nothing near is an empty one
            parts.append(fix)
        # A name of thousands of characters is not repeated in full either.
        super().__init__(_LONG_WORD.sub(lambda word: word[0][:MOST_SHOWN] + "...", "; ".join(parts)))


class ConfigError(EasyTransferError):
    """Bad flag, key, value or combination of them."""

    exit_code = 2


class DataError(EasyTransferError):
    """A table that cannot be used, or a bad row under `badRows=fail`."""

    exit_code = 3


class ModelError(EasyTransferError):
    """A model, checkpoint or export that is missing or does not fit."""

    exit_code = 4


class ResourceError(EasyTransferError):
    """Disk, memory or device is not sufficient."""

    exit_code = 5


class Interrupted(EasyTransferError):
    """The run was stopped by a signal after saving; it can be resumed."""

    exit_code = 6


# What an exit code of the command line means.
BY_EXIT_CODE = {kind.exit_code: kind for kind in (ConfigError, DataError, ModelError, ResourceError, Interrupted)}
# Of the ratio of `difflib`: as far as `trian` is nearer to `train` than to `tracking`.
_MUCH_LESS = 0.15


def closest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` of `choices` that look like `name`, nearest first, without those that look it far less."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    alike = [difflib.SequenceMatcher(None, key, name.lower()).ratio() for key in found]
    return [by_lower[key] for key, ratio in zip(found, alike, strict=True) if ratio > alike[0] - _MUCH_LESS]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns the sentence that names the closest choices, or lists all of a short list."""
    choices = list(choices)
    near = closest(name, choices)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    if len(choices) <= 12:
        return "choose one of: " + ", ".join(choices)
    return ""
