"""Objects made inside a model function are made once and found again, so a function may build its layers in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Object = TypeVar("_Object")


class _Scope:
    def __init__(self, store: dict[str, Any]) -> None:
        self.store = store
        self.unnamed: Counter[str] = Counter()


_scopes: list[_Scope] = []


@contextmanager
def objects_in(store: dict[str, Any]) -> Iterator[None]:
    """Keeps what `created_once` makes inside in `store`, and returns it from there the next time.

    Unnamed objects are told apart by kind and order, so the code inside must make them in the same order every time.
    """
    _scopes.append(_Scope(store))
    try:
        yield
    finally:
        _scopes.pop()


def created_once(kind: str, name: str | None, make: Callable[[], _Object]) -> _Object:
    """Returns `make()`, or what it returned earlier for the same kind and name in the current scope."""
    if not _scopes:
        return make()
    scope = _scopes[-1]
    if name is None:
        scope.unnamed[kind] += 1
        name = f"#{scope.unnamed[kind]}"
    key = f"{kind}/{name}"
    if key not in scope.store:
        scope.store[key] = make()
    return scope.store[key]
