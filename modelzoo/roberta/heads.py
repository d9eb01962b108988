"""RoBERTa's pre-training head: masked words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from easytransfer import keras
from easytransfer.presets import Preset
from modelzoo.encoder_heads import PretrainingHead
from modelzoo.encoder_weights import EncoderFamily
from modelzoo.roberta.config import RobertaConfig
from modelzoo.roberta.convert import ROBERTA


@keras.utils.register_keras_serializable(package="easytransfer")
class RobertaMlmHead(PretrainingHead):
    """Predicts masked tokens (Liu et al. 2019, arXiv 1907.11692, section 2); its activation is always the exact gelu.

    Args:
        config: Configuration of the backbone.
        seed: Seed of the fresh weights.

    Example:
        >>> RobertaMlmHead(backbone.config)(backbone(batch)["sequence_output"], backbone.input_embeddings)
    """

    family: ClassVar[EncoderFamily] = ROBERTA

    def __init__(self, config: RobertaConfig | dict[str, Any], seed: int = 0, **kwargs: Any) -> None:
        super().__init__(config, False, seed, **kwargs)

    @classmethod
    def from_preset(
        cls, name_or_path: str | Path | Preset, *, zoo: str | Path | None = None, allow_missing: str | None = None
    ) -> RobertaMlmHead:
        """Builds the head of a zoo name or folder; see `PretrainingHead.load`."""
        return cls.load(name_or_path, False, zoo, allow_missing)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict("ez")}


HEAD_CLASS = RobertaMlmHead
