"""Settings that several applications share; each application lists only what it adds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from easytransfer.config.job import DataConfig, ModelConfig
from easytransfer.config.schema import setting

LoraTarget = Literal["query", "key", "value", "attention_output", "inner", "output"]


class EncoderSettings(ModelConfig):
    """A pre-trained text encoder."""

    pretrain_model_name_or_path: str = setting(
        "minilm-l6-en",
        "Encoder to start from: a ModelZoo name, a folder, or hf://owner/name@revision of the Hugging Face hub, which "
        "its first use downloads where runtime.offline is false.",
        advanced=True,
        modes="TS",
        path="one",
    )
    from_scratch: bool = setting(
        False, "Start from random encoder weights instead of the pre-trained ones.", advanced=True, modes="T"
    )
    allow_missing: str | None = setting(
        None,
        "Regular expression of names of weights that may start from random values where the model has none.",
        advanced=True,
        modes="T",
    )
    dropout_rate: float = setting(0.1, "Dropout before the head.", advanced=True, modes="T", ge=0, lt=1)
    lower_case: Literal["auto", "true", "false"] = setting(
        "auto", "Lower-case the text; auto follows the pre-trained model.", advanced=True, modes="TS"
    )


class LoraSettings(ModelConfig):
    """Adapters that are trained in place of a pre-trained network (LoRA, arXiv 2106.09685)."""

    lora_rank: int = setting(
        0,
        "Rank of adapters: they and the head are trained, the pre-trained network stays as it is; 0 trains all of it.",
        advanced=True,
        modes="T",
        ge=0,
    )
    lora_alpha: float = setting(
        8.0, "What the adapters add is multiplied by lora_alpha / lora_rank.", advanced=True, modes="T", gt=0
    )
    lora_dropout: float = setting(0.0, "Dropout on what the adapters read.", advanced=True, modes="T", ge=0, lt=1)
    lora_targets: list[LoraTarget] = setting(
        ["query", "value"],
        "Kernels that have adapters: query, key, value and attention_output, inner and output (feed-forward).",
        advanced=True,
        modes="T",
    )

    @property
    def keeps_base(self) -> bool:
        """Whether the pre-trained network stays as it is and is in no checkpoint."""
        return self.lora_rank > 0

    @model_validator(mode="after")
    def _check_lora(self) -> LoraSettings:
        if not self.lora_rank:
            fields = type(self).model_fields
            for name in ("lora_alpha", "lora_dropout", "lora_targets"):
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name} applies where model.lora_rank is 1 or more; remove one of them")
        elif not self.lora_targets:
            raise ValueError("lora_targets names no kernel, and model.lora_rank asks for adapters")
        elif getattr(self, "from_scratch", False):
            raise ValueError("from_scratch does not go with lora_rank: random weights would stay random")
        return self


class TargetSettings(ModelConfig):
    """What a row is given: one class or a number."""

    num_labels: int | None = setting(
        None, "Number of classes, checked against the label list when given.", advanced=True, modes="TEPS", ge=1
    )


class MultiLabelSettings(TargetSettings):
    """What a row is given: one class, several classes, or a number."""

    multi_label: bool = setting(
        False, "A row may have several labels, as a comma list in its cell.", advanced=True, modes="TEPS"
    )
    max_num_labels: int = setting(
        5, "Most labels one row may have; more is a bad row.", advanced=True, modes="TEPS", ge=1
    )
    multi_label_threshold: float = setting(
        0.5, "Probability above which a label is predicted.", advanced=True, modes="TEPX", gt=0, lt=1
    )


class EncoderStudentSettings(EncoderSettings, TargetSettings):
    """The student: all or some layers of a pre-trained encoder, or one of other sizes from random weights."""

    num_layers: int | None = setting(
        None, "Layers of the student; default all of the encoder.", advanced=True, modes="T", ge=1
    )
    layers_from: Literal["first", "uniform"] = setting(
        "uniform",
        "Which layers of the pre-trained encoder these are: the first ones, or every n-th up to the last.",
        advanced=True,
        modes="T",
    )
    hidden_size: int | None = setting(
        None, "Width of a student from random weights; default that of the encoder.", advanced=True, modes="T", ge=1
    )
    num_heads: int | None = setting(
        None, "Attention heads of a student from random weights.", advanced=True, modes="T", ge=1
    )
    intermediate_size: int | None = setting(
        None, "Feed-forward units of a student from random weights.", advanced=True, modes="T", ge=1
    )

    @property
    def changes(self) -> dict[str, Any]:
        """Sizes of the encoder that are others than those of the pre-trained one."""
        given = {
            "num_hidden_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_heads,
            "intermediate_size": self.intermediate_size,
        }
        return {name: value for name, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _check_sizes(self) -> EncoderStudentSettings:
        if not self.from_scratch and self.changes.keys() - {"num_hidden_layers"}:
            raise ValueError(
                "model.hidden_size, model.num_heads and model.intermediate_size have no pre-trained weights; set "
                "model.from_scratch=true, or remove them"
            )
        return self


class DomainDataConfig(DataConfig):
    """Tables of texts, and their domains."""

    domain_name: str = setting("domain", "Column with the domain of a row; only the training looks at it.", modes="TE")
