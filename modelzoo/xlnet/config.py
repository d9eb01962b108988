"""Sizes and settings of an XLNet encoder, under our names and under those of its files. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from easytransfer.errors import ModelError
from modelzoo.encoder_config import EncoderConfig, Form, check_fixed

# Settings that would change the architecture, with the only value this encoder implements.
_FIXED = {
    "attn_type": "bi",
    "bi_data": False,
    "same_length": False,
    "summary_type": "last",
    "summary_use_proj": True,
    "summary_activation": "tanh",
}
# Names of the files, in Google's and Hugging Face's form alike, and ours.
_NAMES = {
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "d_inner": "intermediate_size",
    "ff_activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "dropatt": "attention_probs_dropout_prob",
}
_GOOGLE_NAMES = {**_NAMES, "n_token": "vocab_size"}
# What no file has: they follow from the architecture.
_OWN = ("max_position_embeddings", "type_vocab_size")
# Every layer has attention biases of its own here; checkpoints in which layers share them are read, too.
_UNTIED = {"untie_r": True}


class XlnetConfig(EncoderConfig):
    """Configuration of an XLNet encoder (Yang et al. 2019, arXiv 1906.08237, sections 2.3 to 2.5).

    Files say `d_model`, `n_layer`, `n_head`, `d_inner`, `ff_activation` and `dropout` for what all encoders have.

    Example:
        >>> XlnetConfig.from_dict({"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64})
    """

    FAMILY: ClassVar[str] = "an XLNet"
    GOOGLE_FILE: ClassVar[str] = "xlnet_config.json"

    model_type: str = Field("xlnet", description="Architecture; always xlnet.")
    vocab_size: int = Field(32000, description="Rows of the word embedding table.", ge=1)
    max_position_embeddings: int = Field(1 << 20, description="Longest sequence; positions set no bound.", ge=1)
    type_vocab_size: int = Field(5, description="Segment kinds; only whether two are equal matters.", ge=1)
    pad_token_id: int = Field(5, description="Id of the padding token.", ge=0)
    clamp_len: int = Field(-1, description="Distances beyond count as this one; -1 for no such bound.", ge=-1)
    mem_len: int | None = Field(None, description="Most places of a returned memory; None or 0: all.", ge=0)
    reuse_len: int | None = Field(None, description="First places that a memory takes in; None or 0: all.", ge=0)

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        # Half of an encoded distance are sines, half cosines.
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} is odd")
        return self

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, form: Form | None = None, source: str = "configuration") -> Self:
        """Builds a configuration from the contents of a JSON file; see `EncoderConfig.from_dict`.

        Raises:
            ModelError: As there, or a size has two values.
        """
        data = {**data, **_UNTIED}
        cls.check_architecture(data, source)
        for theirs, ours in _GOOGLE_NAMES.items():
            value = data.pop(theirs, None)
            if value is None:
                continue
            if data.setdefault(ours, value) != value:
                raise ModelError(f"{theirs} and {ours} in {source} differ", received=f"{value}, {data[ours]}")
            if theirs == "dropout":
                data.setdefault(_NAMES["dropatt"], data.get("dropatt", value))
        return super().from_dict(data, form=form, source=source)

    @classmethod
    def check_architecture(cls, data: dict[str, Any], source: str) -> None:
        """Raises ModelError where the contents of a file describe no XLNet, or one with other attention or summary."""
        model_type = data.get("model_type", "xlnet")
        if model_type != "xlnet":
            raise ModelError(f"model_type in {source} is not an XLNet", received=model_type, accepted="xlnet")
        check_fixed(data, _FIXED, source)
        width, heads, size = (data.get(name) for name in ("d_model", "n_head", "d_head"))
        if all(isinstance(value, int) for value in (width, heads, size)) and width != heads * size:
            raise ModelError(
                f"d_head in {source} is not d_model / n_head", received=size, accepted=f"{width} / {heads}"
            )

    def to_dict(self, form: Form = "hf") -> dict[str, Any]:
        """Returns the keys as the given form stores them, unknown keys included; `ez` stands for our own names."""
        data = super().to_dict(form)
        data.pop("d_head", None)
        if form == "ez":
            return data
        if data["attention_probs_dropout_prob"] == data["hidden_dropout_prob"]:
            del data["attention_probs_dropout_prob"]
        data = {name: value for name, value in data.items() if name not in _OWN}
        names = {ours: theirs for theirs, ours in (_GOOGLE_NAMES if form == "google" else _NAMES).items()}
        head = self.hidden_size // self.num_attention_heads
        return {**{names.get(name, name): value for name, value in data.items()}, **_FIXED, **_UNTIED, "d_head": head}


CONFIG_CLASS = XlnetConfig
