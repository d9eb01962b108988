"""Sizes and settings of a BERT encoder. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from easytransfer.errors import ModelError
from modelzoo.bert.family import check_configuration, check_files
from modelzoo.encoder_config import EncoderConfig, check_fixed

# Settings that would change the architecture, with the only value this encoder implements.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


class BertConfig(EncoderConfig):
    """Configuration of a BERT encoder (Devlin et al. 2019, arXiv 1810.04805, section 3).

    Example:
        >>> BertConfig.from_dict({"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4})
    """

    FAMILY: ClassVar[str] = "a BERT"
    GOOGLE_FILE: ClassVar[str] = "bert_config.json"

    model_type: str = Field("bert", description="Architecture; always bert after reading.")

    @classmethod
    def check_architecture(cls, data: dict[str, Any], source: str) -> None:
        """Raises ModelError where the contents of a file describe no BERT."""
        _check_architecture(data, source)

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        """Raises ModelError where the files of a folder are those of another family."""
        check_files(folder)


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
    check_fixed(data, _FIXED, source)
    if data.get("embedding_size", data.get("hidden_size")) != data.get("hidden_size"):
        raise ModelError(
            f"embedding_size in {source} differs from hidden_size, as in ALBERT and ELECTRA, which are no BERT",
            received=data["embedding_size"],
            accepted=str(data.get("hidden_size")),
            fix="see `easy_transfer_app zoo list` for models that can be used",
        )


CONFIG_CLASS = BertConfig
