"""ImageBERT's pre-training heads."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.imagebert.convert import IMAGEBERT
from modelzoo.vision_language.heads import VisionLanguageHeads


@keras.utils.register_keras_serializable(package="easytransfer")
class ImageBertHeads(VisionLanguageHeads):
    """See `VisionLanguageHeads`.

    Example:
        >>> heads = ImageBertHeads(backbone.config, ["mlm", "matching", "features"])
        >>> heads(backbone(batch), backbone.input_embeddings)["matching_logits"]
    """

    family = IMAGEBERT


HEAD_CLASS = ImageBertHeads
