"""Names of encodings of text."""

from __future__ import annotations

import codecs

# UTF-8, or what a mark at the beginning of a file says.
AUTO = "auto"


def encoding_name(name: str) -> str:
    """Returns the name under which Python knows an encoding of text; `auto` stays.

    Raises:
        ValueError: There is none of this name.
    """
    if name.lower() == AUTO:
        return AUTO
    try:
        found = codecs.lookup(name)
        "a".encode(found.name)  # refuses what is no encoding of text, such as base64
        codecs.getincrementaldecoder(found.name)
    except (LookupError, ValueError):
        raise ValueError("no encoding of text that Python knows, such as utf-8, latin-1, cp1252 or gb18030") from None
    return found.name
