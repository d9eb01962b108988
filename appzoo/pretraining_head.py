"""The head of an encoder that guesses hidden words, with the weights that its pre-trained model has for it."""

from __future__ import annotations

import modelzoo.loading as zoo
from easytransfer.errors import ModelError
from easytransfer.presets import Preset
from easytransfer.run.log import say
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.encoder_files import EncoderFiles
from modelzoo.encoder_heads import PretrainingHead


def pretraining_head(backbone: EncoderBackbone, pairs: bool, seed: int, preset: Preset | None) -> PretrainingHead:
    """Returns the head of the family of an encoder.

    Args:
        backbone: Encoder.
        pairs: Whether it also tells pairs apart.
        seed: Seed of fresh weights.
        preset: Model whose head it is; what it has none of starts from random values, which is told. None = all does.

    Raises:
        ModelError: The family has no such head.
    """
    family = backbone.family.name
    try:
        kind = getattr(zoo.family_module(family, "heads"), "HEAD_CLASS", None)
    except ModuleNotFoundError:
        kind = None
    if kind is None:
        raise ModelError(f"models of the family {family} have no head for hidden words")
    if pairs and len(kind.family.heads) < 2:
        raise ModelError(f"models of the family {family} have no head for pairs", fix="set model.pair_task=none")
    head = kind(backbone.config, pairs, seed)
    if preset is None:
        return head
    found = EncoderFiles(kind.family).read_folder(
        preset.folder, config=head.config, parts=head.parts, checkpoint=preset.checkpoint
    )
    for part in head.parts:
        names = {row.name for row in kind.family.weights(head.config, [part])}
        missing = names - found.values.keys()
        if missing and missing != names:
            raise ModelError(f"{preset.folder} lacks a part of its head", received=", ".join(sorted(missing)))
        if missing:
            say(f"the head {part} starts from random values: {preset.folder} has none")
    head.import_weights(found.values)
    return head
