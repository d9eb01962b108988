"""Basic layers under the original's names; inside `build_logits` each is created once and used again."""

from __future__ import annotations

from typing import Any

from easytransfer import keras
from easytransfer.layers.created_once import created_once
from easytransfer.layers.dropout import Dropout as StatelessDropout


def get_initializer(initializer_range: float = 0.02) -> keras.initializers.Initializer:
    """Returns a normal initializer with this standard deviation, cut at two deviations."""
    return keras.initializers.TruncatedNormal(stddev=initializer_range)


def Dense(units: int, name: str | None = None, **settings: Any) -> keras.layers.Dense:  # noqa: N802
    """Returns a dense layer: [..., inputs] to [..., units]; weights start from `get_initializer()`."""
    settings.setdefault("kernel_initializer", get_initializer())
    return created_once("Dense", name, lambda: keras.layers.Dense(units, name=name, **settings))


def Dropout(rate: float, name: str | None = None) -> StatelessDropout:  # noqa: N802
    """Returns dropout with reproducible masks; the shape does not change."""
    return created_once("Dropout", name, lambda: StatelessDropout(rate, name=name))


def LayerNormalization(name: str | None = None, **settings: Any) -> keras.layers.LayerNormalization:  # noqa: N802
    """Returns layer normalization over the last axis, epsilon 1e-12 as in BERT."""
    settings.setdefault("epsilon", 1e-12)
    return created_once("LayerNormalization", name, lambda: keras.layers.LayerNormalization(name=name, **settings))


def Embedding(input_dim: int, output_dim: int, name: str | None = None, **settings: Any) -> keras.layers.Embedding:  # noqa: N802
    """Returns an embedding table: int [...] to [..., output_dim]."""
    settings.setdefault("embeddings_initializer", get_initializer())
    return created_once("Embedding", name, lambda: keras.layers.Embedding(input_dim, output_dim, name=name, **settings))
