"""VideoBERT's pre-training heads."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.videobert.convert import VIDEOBERT
from modelzoo.vision_language.heads import VisionLanguageHeads


@keras.utils.register_keras_serializable(package="easytransfer")
class VideoBertHeads(VisionLanguageHeads):
    """See `VisionLanguageHeads`.

    Example:
        >>> heads = VideoBertHeads(backbone.config, ["mlm", "matching", "features"])
        >>> heads(backbone(batch), backbone.input_embeddings)["feature_predictions"]
    """

    family = VIDEOBERT


HEAD_CLASS = VideoBertHeads
