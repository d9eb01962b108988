"""What the networks are written in: one description serves the Keras model and the count of its costs.

The families (`networks.py`) call these methods only. `keras_builder.py` makes layers of them, `profile.py` adds up
parameters and multiply-accumulates without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

# Symmetric: zeros on all sides, as in PyTorch. Same: TensorFlow's rule, at the bottom and right first.
Padding = Literal["symmetric", "same", "valid"]


class Builder(Protocol):
    """Adds layers; every tensor `x` is [batch, height, width, channels] unless said otherwise."""

    def conv(
        self,
        x: Any,
        filters: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Padding = "symmetric",
        dilation: int = 1,
    ) -> Any:
        """Convolution; `stride` or `dilation` is 1."""

    def depthwise(self, x: Any, kernel: int, name: str, *, stride: int = 1, padding: Padding = "same") -> Any:
        """Convolution of each channel by itself."""

    def norm(self, x: Any, name: str, *, last: bool = False) -> Any:
        """Batch normalisation; `last` marks the last one of a residual branch."""

    def act(self, x: Any, kind: str) -> Any:
        """Activation `relu`, `relu6`, `swish` or `sigmoid`."""

    def dense(self, x: Any, units: int, name: str) -> Any:
        """Dense layer with bias on [batch, features]."""

    def flatten(self, x: Any) -> Any:
        """Returns [batch, height * width * channels]."""

    def max_pool(self, x: Any, size: int, padding: Padding) -> Any:
        """Maximum of windows of this size, stride 2."""

    def mean_pool(self, x: Any, padding: Padding = "same") -> Any:
        """Mean of 2x2 windows, stride 2; padding is not counted."""

    def global_mean(self, x: Any, keep: bool = False) -> Any:
        """Mean over all positions: [batch, channels], or [batch, 1, 1, channels]."""

    def add(self, x: Any, y: Any) -> Any:
        """Sum."""

    def scale(self, x: Any, gate: Any) -> Any:
        """Product of `x` and a gate [batch, 1, 1, channels]."""

    def concat(self, parts: Sequence[Any]) -> Any:
        """Concatenation of channels."""

    def pad_channels(self, x: Any, width: int) -> Any:
        """Zeros behind the channels, up to `width`."""

    def shifted(self, x: Any, shift: int, stride: int) -> Any:
        """Moves the image up and left by `shift` pixels, zeros behind, and keeps every `stride`-th row and column."""

    def dropout(self, x: Any, rate: float) -> Any:
        """Dropout of elements."""

    def drop_path(self, x: Any, rate: float) -> Any:
        """Drops `x` for whole images (stochastic depth)."""

    def shake_drop(self, x: Any, rate: float) -> Any:
        """ShakeDrop."""

    def shake_shake(self, x: Any, y: Any) -> Any:
        """Random mean of two branches."""

    def channels(self, x: Any) -> int:
        """Returns the size of the last axis."""
