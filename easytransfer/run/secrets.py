"""Keeps passwords, tokens and signed addresses out of what is printed and written."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"
_WORDS = {"token", "password", "passwd", "credential", "credentials", "apikey"}
_KEYS = (["api", "key"], ["access", "key"], ["private", "key"])
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PAIR = re.compile(r"(?<![\w.-])([\w.-]+)(=|[\"']\s*:\s*)(\"[^\"]*\"|'[^']*'|[^\s,;}]+)")
# Scheme, user and password, host and path, query.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]{0,20}://)([^\s/@]*@)?([^\s?#]*)(\?[^\s#]*)?", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Returns whether a setting, flag or variable of this name holds a secret, such as `serving.token`."""
    parts = [part.lower() for part in _NAME_PARTS.findall(name)]
    return bool(_WORDS & set(parts[-1:])) or "secret" in parts or parts[-2:] in _KEYS


def without_secrets(text: str) -> str:
    """Returns a text with values of secret names, passwords in addresses and queries of addresses hidden."""
    text = _ADDRESS.sub(lambda found: f"{found[1]}{found[3]}{'?' + HIDDEN if found[4] else ''}", text)
    return _PAIR.sub(lambda found: f"{found[1]}{found[2]}{HIDDEN}" if is_secret(found[1]) else found[0], text)


def shown_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns a command line that can be kept: also without the value behind a flag such as `--token`."""
    flags = ["", *arguments][: len(arguments)]
    return [
        HIDDEN if flag.startswith("--") and "=" not in flag and is_secret(flag) else without_secrets(argument)
        for flag, argument in zip(flags, arguments, strict=True)
    ]
