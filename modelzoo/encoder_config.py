"""Sizes and settings of a transformer encoder, and the three JSON forms they are stored in. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from modelzoo.stored_config import StoredConfig

Form = Literal["hf", "google", "ez"]

# Accepted spellings of an activation in a config.json. `gelu` is x * Phi(x) with the exact error function.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Google's code names its tanh form "gelu", so an exact gelu needs a key of its own, which that code ignores.
_GOOGLE_EXACT = "gelu_form"


class EncoderConfig(StoredConfig):
    """Configuration of an encoder of the kind of BERT (Devlin et al. 2019, arXiv 1810.04805, section 3).

    Keys of a file that are not listed here are kept and written back. A family sets the class attributes and may
    override `check_architecture`, `check_folder` and further defaults.

    Attributes:
        GOOGLE_FILE: Name of Google's configuration file; empty where Google published none.
        HF_ACTIVATION: What transformers computes where its configuration names no activation.
        OTHER_ACTIVATION: What others compute then.
    """

    GOOGLE_FILE: ClassVar[str] = ""
    HF_ACTIVATION: ClassVar[str] = "gelu"
    # EasyTransfer writes no such key and computes the tanh form.
    OTHER_ACTIVATION: ClassVar[str] = "gelu_tanh"

    model_config = ConfigDict(extra="allow")

    model_type: str = Field(description="Architecture; always the name of the family after reading.")
    vocab_size: int = Field(description="Rows of the word embedding table.", ge=1)
    hidden_size: int = Field(768, description="Width of the encoder.", ge=1)
    num_hidden_layers: int = Field(12, description="Encoder layers.", ge=1)
    num_attention_heads: int = Field(12, description="Attention heads; divides hidden_size.", ge=1)
    intermediate_size: int = Field(3072, description="Width of the feed-forward part.", ge=1)
    hidden_act: Literal["gelu", "gelu_tanh", "relu"] = Field("gelu_tanh", description="Feed-forward activation.")
    hidden_dropout_prob: float = Field(0.1, description="Dropout of embeddings and layer outputs.", ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, description="Dropout of attention probabilities.", ge=0, lt=1)
    max_position_embeddings: int = Field(512, description="Longest sequence.", ge=1)
    type_vocab_size: int = Field(2, description="Segment kinds.", ge=1)
    initializer_range: float = Field(0.02, description="Deviation of fresh weights.", gt=0)
    layer_norm_eps: float = Field(1e-12, description="Added to the variance in layer normalization.", gt=0)
    pad_token_id: int = Field(0, description="Id of the padding token.", ge=0)
    do_lower_case: bool | None = Field(None, description="Casing of the vocabulary; None when the file is silent.")

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        return self

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, form: Form | None = None, source: str = "configuration") -> Self:
        """Builds a configuration from the contents of a JSON file.

        Args:
            data: Keys of any of the three forms.
            form: `google` reads `gelu` as the tanh form. None: as Hugging Face and EasyTransfer write them.
            source: File name for messages.

        Raises:
            ModelError: The model type, an activation or a size is not supported.
        """
        data = {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        cls.check_architecture(data, source)
        data["model_type"] = cls.model_fields["model_type"].default
        usual = cls.HF_ACTIVATION if "transformers_version" in data else cls.OTHER_ACTIVATION
        data["hidden_act"] = _read_activation(data, form, source, usual)
        data.pop(_GOOGLE_EXACT, None)
        return cls.checked(data, source)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Reads `config.json` (Hugging Face or EasyTransfer) or the file of Google's form of a model folder.

        Raises:
            ModelError: Neither file exists, it is not valid, or the folder holds a model of another family.
        """
        names = ["config.json", *([cls.GOOGLE_FILE] if cls.GOOGLE_FILE else [])]
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                cls.check_folder(path.parent)
                return cls.from_file(path)
        raise ModelError(f"no {' or '.join(names)} in {folder}", fix="point to a folder that holds a model")

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Reads one JSON file; its name marks Google's form."""
        path = Path(path)
        return cls.from_dict(read_json(path), form="google" if path.name == cls.GOOGLE_FILE else None, source=str(path))

    @classmethod
    def check_architecture(cls, data: dict[str, Any], source: str) -> None:
        """Raises ModelError where the contents of a file describe another architecture."""
        raise NotImplementedError

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        """Raises ModelError where the files of a folder are those of another family."""

    @property
    def word_width(self) -> int:
        """Width of the word embeddings."""
        return self.hidden_size

    @property
    def first_position(self) -> int:
        """Row of the first token in the table of positions; those before it are of no token."""
        return 0

    @property
    def max_tokens(self) -> int:
        """Most tokens of a row."""
        return self.max_position_embeddings - self.first_position

    @property
    def head_act(self) -> str:
        """Activation of the head of masked words."""
        return self.hidden_act

    def class_name(self, name: str) -> str:
        """Returns how transformers calls a class of the family for such a model."""
        return name

    @property
    def stored_layers(self) -> int:
        """Layers that have weights of their own."""
        return self.num_hidden_layers

    def to_dict(self, form: Form = "hf") -> dict[str, Any]:
        """Returns the keys as the given form stores them, unknown keys included."""
        data = {key: value for key, value in self.model_dump().items() if key != "do_lower_case" or value is not None}
        if form == "hf" and self.hidden_act == "gelu_tanh":
            data["hidden_act"] = "gelu_new"
        elif form == "google":
            data.pop("model_type")
            if self.hidden_act != "relu":
                data["hidden_act"] = "gelu"
            if self.hidden_act == "gelu":
                data[_GOOGLE_EXACT] = "erf"
        return data


def check_fixed(data: dict[str, Any], fixed: dict[str, Any], source: str) -> None:
    """Checks settings that would change the architecture.

    Args:
        data: Contents of a configuration file.
        fixed: The only value that each may have where it is named.
        source: File name for messages.

    Raises:
        ModelError: One has another value.
    """
    for key, value in fixed.items():
        if key in data and data[key] != value:
            raise ModelError(f"{key} in {source} is not supported", received=data[key], accepted=[str(value)])


def _read_activation(data: dict[str, Any], form: Form | None, source: str, usual: str) -> str:
    name = data.get("hidden_act")
    if name is None:
        return usual
    if form == "google" and name == "gelu":
        return "gelu" if data.get(_GOOGLE_EXACT) == "erf" else "gelu_tanh"
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelError(f"hidden_act in {source} is not supported", received=name, accepted=sorted(_ACTIVATIONS))
    return _ACTIVATIONS[name]
