"""ALBERT's pre-training heads: masked words and the order of sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from easytransfer import keras
from easytransfer.presets import Preset
from modelzoo.albert.config import AlbertConfig
from modelzoo.albert.convert import ALBERT
from modelzoo.encoder_heads import PretrainingHead
from modelzoo.encoder_weights import EncoderFamily


@keras.utils.register_keras_serializable(package="easytransfer")
class AlbertMlmHead(PretrainingHead):
    """Predicts masked tokens, and whether two segments are in their order (arXiv 1909.11942, section 3.1).

    Args:
        config: Configuration of the backbone.
        sentence_order: Also predict whether the segments were exchanged, as `sop_logits`.
        seed: Seed of the fresh weights.

    Example:
        >>> AlbertMlmHead(backbone.config)(backbone(batch)["sequence_output"], backbone.input_embeddings)
    """

    family: ClassVar[EncoderFamily] = ALBERT

    def __init__(
        self, config: AlbertConfig | dict[str, Any], sentence_order: bool = False, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(config, sentence_order, seed, **kwargs)

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | Path | Preset,
        *,
        sentence_order: bool = False,
        zoo: str | Path | None = None,
        allow_missing: str | None = None,
    ) -> AlbertMlmHead:
        """Builds the head of a zoo name or folder; see `PretrainingHead.load`."""
        return cls.load(name_or_path, sentence_order, zoo, allow_missing)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        base = super().get_config()
        return {**base, "config": self.config.to_dict("ez"), "sentence_order": "sop" in self.parts}


HEAD_CLASS = AlbertMlmHead
