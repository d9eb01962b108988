"""Sizes and settings of an ALBERT encoder. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from easytransfer.errors import ModelError
from modelzoo.encoder_config import EncoderConfig, check_fixed

# Settings that would change the architecture, with the only value this encoder implements.
_FIXED = {
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "net_structure_type": 0,
    "num_memory_blocks": 0,
    "position_embedding_type": "absolute",
}


class AlbertConfig(EncoderConfig):
    """Configuration of an ALBERT encoder (Lan et al. 2020, arXiv 1909.11942, section 3.1).

    Example:
        >>> AlbertConfig.from_dict({"vocab_size": 100, "hidden_size": 256, "num_attention_heads": 4})
    """

    FAMILY: ClassVar[str] = "an ALBERT"
    GOOGLE_FILE: ClassVar[str] = "albert_config.json"
    HF_ACTIVATION: ClassVar[str] = "gelu_new"

    model_type: str = Field("albert", description="Architecture; always albert.")
    embedding_size: int = Field(128, description="Width of the word embeddings; differs from hidden_size.", ge=1)
    hidden_dropout_prob: float = Field(0.0, description="Dropout of embeddings and layer outputs.", ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.0, description="Dropout of attention probabilities.", ge=0, lt=1)
    num_hidden_groups: int = Field(1, description="Groups of layers with weights of their own; 1.", ge=1)
    inner_group_num: int = Field(1, description="Layers of a group; 1.", ge=1)

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        # Google's code then leaves out the projection, and transformers does not.
        if self.embedding_size == self.hidden_size:
            raise ValueError(f"embedding_size {self.embedding_size} equal to hidden_size is not supported")
        return self

    @classmethod
    def check_architecture(cls, data: dict[str, Any], source: str) -> None:
        """Raises ModelError where the contents of a file describe no ALBERT, or one with several groups of layers."""
        model_type = data.get("model_type", "albert")
        if model_type != "albert":
            raise ModelError(f"model_type in {source} is not an ALBERT", received=model_type, accepted="albert")
        check_fixed(data, _FIXED, source)

    @property
    def word_width(self) -> int:
        """Width of the word embeddings."""
        return self.embedding_size

    @property
    def stored_layers(self) -> int:
        """Layers that have weights of their own: one, which all layers use."""
        return 1


CONFIG_CLASS = AlbertConfig
