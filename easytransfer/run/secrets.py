"""Keeps passwords, tokens and signed addresses out of what is printed and written."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"
_WORDS = {"token", "password", "passwd", "credential", "credentials", "apikey"}
_KEYS = (["api", "key"], ["access", "key"], ["private", "key"])
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# A name with what stands between it and its value, in text and in JSON; then the value.
_NAME = re.compile(r"(?<![\w.-])([\w.-]+)(=|[\"']\s*:\s*(?=[\"'\d]))")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s,;}]+")
# Scheme, user and password, host and path, query.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]{0,20}://)([^\s/@]*@)?([^\s?#]*)(\?[^\s#]*)?", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Returns whether a setting, flag or variable of this name holds a secret, such as `serving.token`."""
    parts = [part.lower() for part in _NAME_PARTS.findall(name)]
    return bool(_WORDS & set(parts[-1:])) or "secret" in parts or parts[-2:] in _KEYS


def without_secrets(text: str) -> str:
    """Returns a text with values of secret names, passwords in addresses and queries of addresses hidden."""
    text = _ADDRESS.sub(lambda found: f"{found[1]}{found[3]}{'?' + HIDDEN if found[4] else ''}", text)
    parts, at = [], 0
    for name in _NAME.finditer(text):
        value = _VALUE.match(text, name.end()) if name.start() >= at and is_secret(name[1]) else None
        if value:
            parts += [text[at : name.end()], HIDDEN]
            at = value.end()
    return "".join([*parts, text[at:]])


def shown_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns a command line that can be kept: also without the value behind a flag such as `--token`."""
    flags = ["", *arguments][: len(arguments)]
    return [
        HIDDEN if flag.startswith("--") and "=" not in flag and is_secret(flag) else without_secrets(argument)
        for flag, argument in zip(flags, arguments, strict=True)
    ]
