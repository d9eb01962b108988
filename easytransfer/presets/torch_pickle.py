"""The pickle of a state dict, followed by an interpreter of our own and never run.

A pickle is a program for Python's pickle machine, which may call anything. The interpreter here knows the few
instructions that a state dict needs, makes descriptions of tensors, names and numbers of them, and refuses all others
by name. It takes a bounded number of short instructions, and no value it made is printed: values of values may be long.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# A name of a weight is some dozens of bytes; all instructions of 10,000 tensors are 300,000, some megabytes.
_LONGEST_TEXT, _LONGEST_PICKLE, _MOST_INSTRUCTIONS = 10_000, 16 << 20, 500_000
_DIGITS = 20
_MOST_AXES = 32


class Refused(Exception):
    """What a file asks for, or is, and may not."""


@dataclass(frozen=True)
class Storage:
    """Numbers of the file that tensors are views of."""

    dtype: np.dtype
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage: where it begins, sizes and steps in numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Returns an array of its own, from the numbers of the storage."""
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if (
            self.offset < 0
            or min((*self.size, *self.stride), default=0) < 0
            or (0 not in self.size and last >= len(numbers))
        ):
            raise Refused(f"a tensor {list(self.size)} reaches beyond its {len(numbers)} numbers")
        if 0 in self.size:
            return np.zeros(self.size, numbers.dtype)
        steps = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, steps, writeable=False).copy()


class Bounded:
    """A stream that gives no more at once, and in all, than the instructions of a state dict need."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._left = stream, _LONGEST_PICKLE

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes, or those that are left."""
        if not 0 <= count <= _LONGEST_TEXT:
            raise Refused(f"its pickle has a piece of {count} bytes")
        return self._counted(self._stream.read(count))

    def readline(self) -> bytes:
        """Returns the bytes up to the end of the line."""
        return self._counted(self._stream.readline(_LONGEST_TEXT))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise Refused(f"its pickle is longer than {_LONGEST_PICKLE} bytes")
        return data


@dataclass(frozen=True)
class _Maker:
    """A function that a pickle may name; here it is one of ours with the same result."""

    name: str
    make: Callable[..., Any]


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXTS = {
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Machine:
    """Follows the instructions of one pickle.

    Attributes:
        storages: By key, those that were named.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: Bounded) -> Any:
        """Returns what the pickle at the place of the stream makes.

        Raises:
            Refused: It asks for something else than a state dict needs.
        """
        for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            name = instruction.name
            if name == "STOP":
                break
            if number == _MOST_INSTRUCTIONS:
                raise Refused(f"its pickle has more than {_MOST_INSTRUCTIONS} instructions")
            self._follow(name, argument)
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise ValueError("its pickle leaves no value, or several")
        return self._stack.pop()

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _NUMBERS_AND_TEXTS:
            stack.append(_short(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            act = _ACTS.get(name)
            if act is None:
                raise Refused(f"its pickle has the instruction {name}")
            act(self, argument)

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("its pickle takes a value that is not there")
        return self._stack[-1]

    def _pop(self, count: int) -> list[Any]:
        found = self._stack[-count:] if count else []
        if len(found) != count or any(value is _MARK for value in found):
            raise ValueError("its pickle takes a value that is not there")
        del self._stack[len(self._stack) - count :]
        return found

    def _to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                found = self._stack[place + 1 :]
                del self._stack[place:]
                return found
        raise ValueError("its pickle lacks a mark")

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _set_item(self, _: Any) -> None:
        self._set(self._pop(2))

    def _set_items(self, _: Any) -> None:
        self._set(self._to_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError("its pickle sets entries of what has none")
        for name, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(name, str):
                raise Refused(f"an entry is named by a {type(name).__name__}")
            target[name] = value

    def _append(self, _: Any) -> None:
        self._extend(self._pop(1))

    def _append_all(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise ValueError("its pickle appends to what is no list")
        target.extend(values)

    def _global(self, argument: Any) -> None:
        self._stack.append(_named(str(argument).replace(" ", ".")))

    def _stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("its pickle names something by no text")
        self._stack.append(_named(f"{module}.{name}"))

    def _reduce(self, _: Any) -> None:
        maker, arguments = self._pop(2)
        if not isinstance(maker, _Maker) or not isinstance(arguments, tuple):
            raise Refused(f"its pickle calls a {type(maker).__name__}")
        try:
            self._stack.append(maker.make(*arguments))
        except TypeError:
            raise ValueError(f"its pickle calls {maker.name} with other arguments than it takes") from None

    def _build(self, _: Any) -> None:
        """An OrderedDict of a state dict gets `_metadata`, versions of modules, which are left aside."""
        target, state = self._pop(2)
        if type(target) is not dict or not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise Refused("its pickle sets attributes of an object")
        self._stack.append(target)

    def _persistent(self, _: Any) -> None:
        (found,) = self._pop(1)
        if not isinstance(found, tuple) or len(found) not in (5, 6) or found[0] != "storage":
            raise Refused("it refers to something that is no storage")
        kind, key, _, count = found[1:5]
        if len(found) == 6 and found[5] is not None:
            raise Refused("it has storages that are parts of others, as PyTorch wrote them before version 0.4")
        if not isinstance(kind, np.dtype) or not isinstance(key, str) or not _is_size(count):
            raise ValueError("a storage is not described as one")
        storage = Storage(kind, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise Refused(f"storage {key} is described in two ways")
        self._stack.append(storage)


_ACTS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "TUPLE": Machine._tuple,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "APPEND": Machine._append,
    "APPENDS": Machine._append_all,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}


def _short(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= 256**_DIGITS:
        raise Refused("its pickle has a number without end")
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _named(name: str) -> Any:
    """Returns what stands for a name of the pickle: a kind of numbers, or a maker of ours."""
    module, _, last = name.rpartition(".")
    if module == "torch" and last in _STORAGES:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)

        return np.dtype(_STORAGES[last])
    if name in _MAKERS:
        return _Maker(name, _MAKERS[name])
    raise Refused(f"its pickle asks for {name[:200]}")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, *rest: Any) -> Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`; hooks and further facts of a tensor must be empty."""
    shapes = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MOST_AXES
    if not isinstance(storage, Storage) or not shapes or not all(map(_is_size, (offset, *size, *stride))):
        raise ValueError("a tensor is not described as one")
    if hooks or any(rest):
        raise Refused("a tensor has hooks or other attributes")
    return Tensor(storage, offset, size, stride)


def _parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
    """Stands for `torch._utils._rebuild_parameter`."""
    if not isinstance(tensor, Tensor) or hooks:
        raise Refused("a parameter is no tensor, or has hooks")
    return tensor


_MAKERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
