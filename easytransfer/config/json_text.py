"""JSON that somebody else wrote: every way it can be wrong is a ValueError."""

from __future__ import annotations

import json
import re
from typing import Any

# Halves of surrogate pairs can only come from escapes; whole pairs look the same here.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, **options: Any) -> Any:
    """Returns the value of a JSON text.

    Args:
        text: The text.
        **options: As `json.loads` takes them.

    Raises:
        ValueError: It is not JSON, is nested too deeply, or holds a number of thousands of digits or half of a
            surrogate pair, which no UTF-8 file can hold.
    """
    try:
        value = json.loads(text, **options)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return value
