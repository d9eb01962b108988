"""Configuration of text classification."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from easytransfer.config.job import JobConfig, ModelConfig
from easytransfer.config.schema import setting

VARIANTS = ("bert",)


class TextClassifyModelConfig(ModelConfig):
    """Encoder and head."""

    pretrain_model_name_or_path: str = setting(
        "minilm-l6-en", "Encoder to start from: a ModelZoo name or a folder.", advanced=True, modes="TS"
    )
    from_scratch: bool = setting(
        False, "Start from random encoder weights instead of the pre-trained ones.", advanced=True, modes="T"
    )
    num_labels: int | None = setting(
        None, "Number of classes, checked against the label list when given.", advanced=True, modes="TEPS", ge=1
    )
    multi_label: bool = setting(
        False, "A row may have several labels, as a comma list in its cell.", advanced=True, modes="TEPS"
    )
    max_num_labels: int = setting(
        5, "Most labels one row may have; more is a bad row.", advanced=True, modes="TEPS", ge=1
    )
    multi_label_threshold: float = setting(
        0.5, "Probability above which a label is predicted.", advanced=True, modes="TEPX", gt=0, lt=1
    )
    dropout_rate: float = setting(0.1, "Dropout before the head.", advanced=True, modes="T", ge=0, lt=1)
    lower_case: Literal["auto", "true", "false"] = setting(
        "auto", "Lower-case the text; auto follows the pre-trained model.", advanced=True, modes="TS"
    )


class TextClassifyConfig(JobConfig):
    """Classify or score one text or a pair of texts."""

    model: TextClassifyModelConfig = TextClassifyModelConfig()

    @model_validator(mode="after")
    def _check_labels(self) -> TextClassifyConfig:
        if self.model.multi_label and self.train.class_weights is not None:
            raise ValueError("train.class_weights does not apply when model.multi_label is true; remove one of them")
        if self.model.multi_label and self.train.label_smoothing:
            raise ValueError("train.label_smoothing does not apply when model.multi_label is true; remove one of them")
        return self


Config = TextClassifyConfig
