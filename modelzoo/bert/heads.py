"""BERT's pre-training heads: masked words and next sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from easytransfer import keras
from easytransfer.presets import Preset
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.encoder_heads import PretrainingHead
from modelzoo.encoder_weights import EncoderFamily


@keras.utils.register_keras_serializable(package="easytransfer")
class BertMlmHead(PretrainingHead):
    """Predicts masked tokens, and whether the second text follows the first (arXiv 1810.04805, section 3.1).

    Args:
        config: Configuration of the backbone.
        next_sentence: Also predict whether the second text follows the first (task 2), as `nsp_logits`.
        seed: Seed of the fresh weights.

    Example:
        >>> BertMlmHead(backbone.config)(backbone(batch)["sequence_output"], backbone.input_embeddings)
    """

    family: ClassVar[EncoderFamily] = BERT

    def __init__(
        self, config: BertConfig | dict[str, Any], next_sentence: bool = False, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(config, next_sentence, seed, **kwargs)

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        *,
        next_sentence: bool = False,
        zoo: str | Path | None = None,
        allow_missing: str | None = None,
    ) -> BertMlmHead:
        """Builds the head of a zoo name or folder; see `PretrainingHead.load`."""
        return cls.load(name_or_path, next_sentence, zoo, allow_missing)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        base = super().get_config()
        return {**base, "config": self.config.to_dict("ez"), "next_sentence": "nsp" in self.parts}


HEAD_CLASS = BertMlmHead
