"""What the targets are fed: texts and files that are nearly right, and some that are not at all."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

# Characters that mean something to one of the readers, and those that often break programs.
SPECIAL = "\t\n\r,;:|=#\"'\\[]{}()<>&*!?@%$~`-+._/ 09aZé中\0\x1b\x7f\x85\u200d\u202e\u2028\ufeff\ufffd\U0001f600\u0301"
# Share of changes of bytes that keep the length.
IN_PLACE = 0.5
LONE_SURROGATE = "\ud800"
EDGE_NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 0.1, 1e308, float("nan"), float("inf")]
EDGE_TEXTS = ["", " ", "\0", "..", "../x", "/", "null", "none", "true", "1e999", "9" * 5000, "a" * 3000, "${HOME}", "-"]


def texts(words: Sequence[str] = (), surrogates: bool = False) -> st.SearchStrategy[str]:
    """Texts: any characters, or pieces of the grammar `words` in any order."""
    alphabet = st.one_of(st.sampled_from(SPECIAL), st.characters(exclude_categories=() if surrogates else ("Cs",)))
    free = st.text(alphabet, max_size=40)
    if not words:
        return st.one_of(free, st.sampled_from(EDGE_TEXTS))
    pieces = st.one_of(st.sampled_from(list(words)), free, st.sampled_from(EDGE_TEXTS))
    return st.lists(pieces, max_size=20).map("".join)


def values(surrogates: bool = True) -> st.SearchStrategy[Any]:
    """JSON values of any shape, with numbers and texts at the edges of what can be held."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(EDGE_NUMBERS),
        texts(surrogates=surrogates),
    )
    return st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts(), inner, max_size=4))
    )


def keyed(keys: Sequence[str], inner: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Dictionaries with some of `keys`, and sometimes another one."""
    inner = values() if inner is None else inner
    known = st.dictionaries(st.sampled_from(list(keys)), inner, max_size=len(keys))
    return st.one_of(known, st.builds(lambda a, b: {**a, **b}, known, st.dictionaries(texts(), inner, max_size=2)))


def as_json(value: Any) -> str:
    """JSON of any of these values; NaN and half surrogate pairs are written as Python does."""
    return json.dumps(value)


def json_bytes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """The same as the bytes of a JSON file."""
    return inner.map(lambda value: as_json(value).encode())


@st.composite
def edited(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` with some bytes changed, cut out, put in or doubled; or nothing like it."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64]))
        kind = draw(st.sampled_from(["set", "cut", "put", "end", "twice", "number"]))
        if kind == "set":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "put":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "end":
            del data[at:]
        elif kind == "twice":
            data[at:at] = data[at : at + length]
        else:
            number = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]))
            order = draw(st.sampled_from("<>"))
            data[at : at + 8] = struct.pack(f"{order}Q", number)
    return bytes(data)


def files(*seeds: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a file: mostly edited `seeds`, sometimes anything."""
    return st.one_of(edited(seeds), edited(seeds), edited(seeds), st.binary(max_size=200))


def safetensors_bytes(header: Any, body: bytes, claimed: int | None) -> bytes:
    """A safetensors file with any header and any claim of its length."""
    raw = header if isinstance(header, bytes) else as_json(header).encode()
    return struct.pack("<Q", (len(raw) if claimed is None else claimed) % 2**64) + raw + body


def safetensors() -> st.SearchStrategy[bytes]:
    """Files that look like safetensors and mostly lie."""
    number = st.one_of(st.integers(-1, 40), st.sampled_from([2**31, 2**32, 2**40, 2**63, 2**64]))
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F64", "BF16", "F16", "I8", "I64", "U8", "BOOL", "F8_E4M3", "F99", "", 5]),
            "shape": st.one_of(st.lists(number, max_size=4), values()),
            "data_offsets": st.one_of(st.lists(number, min_size=2, max_size=2), values()),
        }
    )
    names = st.sampled_from(["a", "b", "__metadata__", "", "../x"])
    header = st.one_of(
        st.dictionaries(names, st.one_of(entry, entry, values()), max_size=3), values(), st.binary(max_size=30)
    )
    claims = st.one_of(st.none(), st.none(), number)
    return st.builds(safetensors_bytes, header, st.binary(max_size=40), claims)


def mutated(value: Any, random: Random) -> Any:
    """A copy with some characters or bytes changed in one of its texts; longer ones are changed more often."""
    if isinstance(value, (str, bytes)):
        for _ in range(random.randint(1, 3)):
            value = _edit(value, random)
        return value
    if isinstance(value, (list, tuple)) and _size(value):
        place = random.choices(range(len(value)), [_size(item) for item in value])[0]
        return type(value)([mutated(item, random) if i == place else item for i, item in enumerate(value)])
    if isinstance(value, dict) and _size(value):
        place = random.choices(list(value), [_size(item) for item in value.values()])[0]
        return {**value, place: mutated(value[place], random)}
    return value


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value) + 1
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_size, items))


def _edit(value: Any, random: Random) -> Any:
    start = random.randrange(len(value) + 1)
    end = min(len(value), start + random.choice([0, 1, 1, 2, 8, 64]))
    other = random.randrange(len(value) + 1)
    new = random.choice(["".join(random.choices(SPECIAL, k=random.randint(0, 4))), random.choice(EDGE_TEXTS)])
    if isinstance(value, bytes):
        new = random.choice([new.encode(), random.randbytes(random.choice([1, 2, 4, 8]))])
        if random.random() < IN_PLACE:
            # What follows stays where it is.
            return value[:start] + new + value[start + len(new) :]
    return value[:start] + random.choice([new, value[other : other + 16]]) + value[end:]
