"""A seeded residual network with three small blocks, for tests and first steps without a download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easytransfer.errors import ConfigError
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named

CLASSES = 10


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> CnnConfig:
    """Writes the model as a preset folder: 16x16 colour images, 8, 16 and 32 channels, ten classes.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Not for images.
        overwrite: Replace an existing folder.

    Returns:
        The configuration.

    Raises:
        ConfigError: A vocabulary was given.
        ModelError: The folder exists.
    """
    if vocab is not None:
        raise ConfigError("an image network has no vocabulary", fix="leave out --vocab")
    from modelzoo.cnn.backbone import CnnBackbone

    config = named("resnet8_w8_cifar").replace(image_size=16)
    facts = {"name": Path(target).name, "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    CnnBackbone(config, CLASSES, seed).save_to_preset(target, facts=facts, overwrite=overwrite)
    return config
