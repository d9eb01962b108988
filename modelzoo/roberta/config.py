"""Sizes and settings of a RoBERTa encoder. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from easytransfer.errors import ModelError
from modelzoo.encoder_config import EncoderConfig, Form, check_fixed

XLM = "xlm-roberta"
TYPES = ("roberta", XLM)
# Settings that would change the architecture, with the only value this encoder implements.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


class RobertaConfig(EncoderConfig):
    """Configuration of a RoBERTa encoder (Liu et al. 2019, arXiv 1907.11692): a BERT with other positions.

    XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116) is the same network with another tokenizer.

    Tokens are numbered from `pad_token_id + 1` on, so that 514 rows of positions are texts of 512 tokens.

    Example:
        >>> RobertaConfig.from_dict({"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4})
    """

    FAMILY: ClassVar[str] = "a RoBERTa"
    OTHER_ACTIVATION: ClassVar[str] = "gelu"

    model_type: str = Field("roberta", description="Type: roberta, or xlm-roberta with its pieces of many languages.")
    max_position_embeddings: int = Field(514, description="Rows of the table of positions.", ge=1)
    hidden_act: Literal["gelu", "gelu_tanh", "relu"] = Field("gelu", description="Feed-forward activation.")
    type_vocab_size: int = Field(1, description="Segment kinds; published models have one.", ge=1)
    layer_norm_eps: float = Field(1e-5, description="Added to the variance in layer normalization.", gt=0)
    pad_token_id: int = Field(1, description="Id of the padding token; positions begin behind it.", ge=0)

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        if self.max_tokens < 1:
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} has no row behind pad_token_id "
                f"{self.pad_token_id}"
            )
        return self

    @classmethod
    def check_architecture(cls, data: dict[str, Any], source: str) -> None:
        """Raises ModelError where the contents of a file describe no RoBERTa."""
        model_type = data.get("model_type", "roberta")
        if model_type not in TYPES:
            raise ModelError(f"model_type in {source} is not a RoBERTa", received=model_type, accepted=TYPES)
        check_fixed(data, _FIXED, source)

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, form: Form | None = None, source: str = "configuration") -> Self:
        """See `EncoderConfig`; the type stays the one that is stated."""
        found = super().from_dict(data, form=form, source=source)
        return found.model_copy(update={"model_type": data.get("model_type") or found.model_type})

    @property
    def first_position(self) -> int:
        """Row of the first token in the table of positions."""
        return self.pad_token_id + 1

    @property
    def head_act(self) -> str:
        """Activation of the head of masked words, whatever the layers have."""
        return "gelu"

    def class_name(self, name: str) -> str:
        """See `EncoderConfig`."""
        return f"XLM{name}" if self.model_type == XLM else name

    def to_dict(self, form: Form = "hf") -> dict[str, Any]:
        """Returns the keys; the class among them tells it from EasyTransfer's Chinese RoBERTas, which are BERTs."""
        return {"architectures": [self.class_name("RobertaModel")], **super().to_dict(form)}


CONFIG_CLASS = RobertaConfig
