"""Sizes and settings of a BERT encoder, and the three JSON forms they are stored in. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from easytransfer.errors import ConfigError, ModelError, did_you_mean
from easytransfer.presets.folder import read_json
from modelzoo.bert.family import check_configuration, check_files

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
_GOOGLE_FILE = "bert_config.json"
# Settings that would change the architecture, with the only value this encoder implements.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


class BertConfig(BaseModel):
    """Configuration of a BERT encoder (Devlin et al. 2019, arXiv 1810.04805, section 3).

    Keys of a file that are not listed here are kept and written back.

    Example:
        >>> BertConfig.from_dict({"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4})
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model_type: str = Field("bert", description="Architecture; always bert after reading.")
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
    def _check_sizes(self) -> BertConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        return self

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, form: Form | None = None, source: str = "configuration") -> BertConfig:
        """Builds a configuration from the contents of a JSON file.

        Args:
            data: Keys of any of the three forms.
            form: `google` reads `gelu` as the tanh form. None: as Hugging Face and EasyTransfer write them.
            source: File name for messages.

        Raises:
            ModelError: The model type, an activation or a size is not supported.
        """
        data = {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        _check_architecture(data, source)
        data["model_type"] = "bert"
        data["hidden_act"] = _read_activation(data, form, source)
        data.pop(_GOOGLE_EXACT, None)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc'])) or 'sizes'}: {e['msg']}" for e in error.errors()]
            raise ModelError(f"{source} does not describe a BERT encoder: " + "; ".join(problems)) from None

    @classmethod
    def from_folder(cls, folder: str | Path) -> BertConfig:
        """Reads `config.json` (Hugging Face or EasyTransfer) or `bert_config.json` (Google) of a model folder.

        Raises:
            ModelError: Neither file exists, it is not valid, or the folder holds no BERT.
        """
        for name in ("config.json", _GOOGLE_FILE):
            path = Path(folder, name)
            if path.is_file():
                check_files(path.parent)
                return cls.from_file(path)
        raise ModelError(f"no config.json or {_GOOGLE_FILE} in {folder}", fix="point to a folder that holds a model")

    @classmethod
    def from_file(cls, path: str | Path) -> BertConfig:
        """Reads one JSON file; the name `bert_config.json` marks Google's form."""
        path = Path(path)
        return cls.from_dict(read_json(path), form="google" if path.name == _GOOGLE_FILE else None, source=str(path))

    def replace(self, **overrides: Any) -> BertConfig:
        """Returns a copy with some fields changed.

        Raises:
            ConfigError: A name is not a field, or its value is not accepted.
        """
        for name in overrides:
            if name not in type(self).model_fields:
                raise ConfigError(f"unknown model setting {name}", fix=did_you_mean(name, type(self).model_fields))
        try:
            return type(self).from_dict({**self.to_dict("ez"), **overrides}, source="changed configuration")
        except ModelError as error:
            raise ConfigError(str(error)) from None

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


def _check_architecture(data: dict[str, Any], source: str) -> None:
    model_type = data.get("model_type", "bert")
    # EasyTransfer's Chinese RoBERTa is a BERT; what Hugging Face calls roberta numbers positions differently.
    from_hugging_face = "transformers_version" in data or "architectures" in data
    if model_type != "bert" and not (model_type == "roberta" and not from_hugging_face):
        raise ModelError(
            f"model_type in {source} is not a BERT",
            received=model_type,
            accepted="bert, roberta in EasyTransfer's form",
            fix="see `easy_transfer_app zoo list` for models that can be used",
        )
    check_configuration(data, source)
    for key, value in _FIXED.items():
        if key in data and data[key] != value:
            raise ModelError(f"{key} in {source} is not supported", received=data[key], accepted=[str(value)])
    if data.get("embedding_size", data.get("hidden_size")) != data.get("hidden_size"):
        raise ModelError(
            f"embedding_size in {source} differs from hidden_size, as in ALBERT and ELECTRA, which are no BERT",
            received=data["embedding_size"],
            accepted=str(data.get("hidden_size")),
            fix="see `easy_transfer_app zoo list` for models that can be used",
        )


def _read_activation(data: dict[str, Any], form: Form | None, source: str) -> str:
    name = data.get("hidden_act")
    if name is None:
        # EasyTransfer writes no such key and computes the tanh form; transformers' default is the exact one.
        return "gelu" if "transformers_version" in data else "gelu_tanh"
    if form == "google" and name == "gelu":
        return "gelu" if data.get(_GOOGLE_EXACT) == "erf" else "gelu_tanh"
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelError(f"hidden_act in {source} is not supported", received=name, accepted=sorted(_ACTIVATIONS))
    return _ACTIVATIONS[name]


CONFIG_CLASS = BertConfig
