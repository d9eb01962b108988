"""Sizes and settings of a T5 and its config.json. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from modelzoo.stored_config import StoredConfig

# `feed_forward_proj` of a file -> activation and whether a second projection gates it.
_FEED_FORWARD = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gated-relu": ("relu", True),
    # transformers reads this one as the tanh form.
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
}
_TYPES = ("t5", "mt5")
# Settings that would change the architecture, with the only values this network implements.
_FIXED = {"is_encoder_decoder": (True,), "is_decoder": (False,), "scalable_attention": (False,)}


class T5Config(StoredConfig):
    """Configuration of a T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.1; version 1.1 by `gated-gelu`).

    Keys of a file that are not listed here are kept and written back.

    Example:
        >>> T5Config.from_dict({"vocab_size": 100, "d_model": 32, "num_heads": 4, "d_kv": 8, "d_ff": 64})
    """

    FAMILY: ClassVar[str] = "a T5"

    model_config = ConfigDict(extra="allow")

    model_type: str = Field("t5", description="Architecture: t5, or mt5, which differs in its vocabulary alone.")
    vocab_size: int = Field(32128, description="Rows of the embedding table, more than the tokenizer has.", ge=1)
    d_model: int = Field(512, description="Width of encoder and decoder.", ge=1)
    d_kv: int = Field(64, description="Width of an attention head.", ge=1)
    d_ff: int = Field(2048, description="Width of the feed-forward part.", ge=1)
    num_layers: int = Field(6, description="Encoder layers.", ge=1)
    num_decoder_layers: int = Field(6, description="Decoder layers; as many as encoder layers where a file is silent.")
    num_heads: int = Field(8, description="Attention heads.", ge=1)
    relative_attention_num_buckets: int = Field(32, description="Rows of a table of relative positions.", ge=4)
    relative_attention_max_distance: int = Field(128, description="Distances beyond share the last bucket.", ge=2)
    feed_forward_proj: Literal["relu", "gelu", "gated-relu", "gated-gelu", "gated-silu"] = Field(
        "relu", description="Activation of the feed-forward part, gated by a second projection or not."
    )
    dropout_rate: float = Field(0.1, description="Dropout of embeddings, attention and layer outputs.", ge=0, lt=1)
    layer_norm_epsilon: float = Field(1e-6, description="Added to the mean square in normalization.", gt=0)
    initializer_factor: float = Field(1.0, description="Factor of fresh weights.", gt=0)
    tie_word_embeddings: bool = Field(True, description="The output matrix is the embedding table.")
    scale_decoder_outputs: bool = Field(
        description="States are divided by the root of d_model before the output matrix; where a file is silent, if it "
        "is the embedding table.",
    )
    pad_token_id: int = Field(0, description="Id of the padding token.", ge=0)
    eos_token_id: int = Field(1, description="Id that ends a text.", ge=0)
    decoder_start_token_id: int = Field(0, description="Id that the decoder begins with.", ge=0)

    @property
    def activation(self) -> str:
        """Name of the activation of the feed-forward part."""
        return _FEED_FORWARD[self.feed_forward_proj][0]

    @property
    def is_gated(self) -> bool:
        """Whether a second projection is multiplied with the activated one."""
        return _FEED_FORWARD[self.feed_forward_proj][1]

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, source: str = "configuration") -> T5Config:
        """Builds a configuration from the contents of a config.json.

        Raises:
            ModelError: The model type, an activation or a size is not supported.
        """
        data = {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        if data.get("model_type", "t5") not in _TYPES:
            raise ModelError(f"model_type in {source} is no T5", received=data["model_type"], accepted=_TYPES)
        for key, values in _FIXED.items():
            if key in data and data[key] not in values:
                raise ModelError(
                    f"{key} in {source} is not supported", received=data[key], accepted=[str(v) for v in values]
                )
        data.setdefault("num_decoder_layers", data.get("num_layers", 6))
        data.setdefault("scale_decoder_outputs", data.get("tie_word_embeddings", True))
        return cls.checked(data, source)

    @classmethod
    def from_folder(cls, folder: str | Path) -> T5Config:
        """Reads `config.json` of a model folder.

        Raises:
            ModelError: The file is missing or not valid.
        """
        path = Path(folder, "config.json")
        if not path.is_file():
            raise ModelError(f"no config.json in {folder}", fix="point to a folder that holds a model")
        return cls.from_dict(read_json(path), source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys as config.json stores them, unknown keys included."""
        return {"is_encoder_decoder": True, **self.model_dump()}


CONFIG_CLASS = T5Config
