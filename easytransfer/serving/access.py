"""Who may ask: a token that clients send as `Authorization: Bearer TOKEN`."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from easytransfer.errors import ConfigError
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.settings import TOKEN_VARIABLE

_SHORTEST = 16


class Gate:
    """Lets requests through that carry the token, or all where there is none; the token is never written anywhere.

    Args:
        token_file: File that holds it; the environment is looked at when None.

    Raises:
        ConfigError: The file cannot be read, or the token is too short to be one.
    """

    def __init__(self, token_file: str | None) -> None:
        place, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
        if token_file is not None:
            place = token_file
            try:
                token = Path(token_file).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise ConfigError(f"the token in {token_file} cannot be read", received=type(error).__name__) from None
        token = token.strip()
        if (token or token_file is not None) and len(token) < _SHORTEST:
            raise ConfigError(f"the token in {place} is too short", accepted=f"at least {_SHORTEST} characters")
        self._expected = f"Bearer {token}".encode() if token else None

    def check(self, authorization: str | bytes | None) -> None:
        """Compares in constant time.

        Args:
            authorization: Value of the header or metadata key of that name.

        Raises:
            ServingFailure: The token is missing or wrong.
        """
        if self._expected is None:
            return
        given = authorization.encode("utf-8", "replace") if isinstance(authorization, str) else authorization or b""
        if not hmac.compare_digest(given, self._expected):
            raise ServingFailure("UNAUTHENTICATED", "send the token of this server as `Authorization: Bearer TOKEN`")
