"""Model settings that several applications share; each application lists only what it adds."""

from __future__ import annotations

from typing import Literal

from easytransfer.config.job import ModelConfig
from easytransfer.config.schema import setting


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
