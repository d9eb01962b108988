"""LXMERT's pre-training heads."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.lxmert.convert import LXMERT
from modelzoo.vision_language.heads import VisionLanguageHeads


@keras.utils.register_keras_serializable(package="easytransfer")
class LxmertHeads(VisionLanguageHeads):
    """See `VisionLanguageHeads`; `features`, `objects` and `attributes` share a dense layer before them.

    Example:
        >>> heads = LxmertHeads(backbone.config, ["mlm", "matching", "objects"])
        >>> heads(backbone(batch), backbone.input_embeddings)["object_logits"]
    """

    family = LXMERT


HEAD_CLASS = LxmertHeads
