"""Configuration of text classification."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.settings import EncoderSettings, LoraSettings, MultiLabelSettings
from appzoo.words_settings import TextCnnSettings, check_text_cnn
from easytransfer.config.job import JobConfig


class ClassifyConfig(JobConfig):
    """Checks that all variants share."""

    model: MultiLabelSettings = MultiLabelSettings()

    @model_validator(mode="after")
    def _check_labels(self) -> ClassifyConfig:
        if self.model.multi_label and self.train.class_weights is not None:
            raise ValueError("train.class_weights does not apply when model.multi_label is true; remove one of them")
        if self.model.multi_label and self.train.label_smoothing:
            raise ValueError("train.label_smoothing does not apply when model.multi_label is true; remove one of them")
        return self


class BertClassifySettings(EncoderSettings, LoraSettings, MultiLabelSettings):
    """Encoder and head."""


class BertClassifyConfig(ClassifyConfig):
    """Classify or score one text or a pair of texts."""

    model: BertClassifySettings = BertClassifySettings()


class CnnClassifySettings(TextCnnSettings, MultiLabelSettings):
    """Words, convolutions and head."""


class CnnClassifyConfig(ClassifyConfig):
    """Classify or score one text by convolutions over its words, without a pre-trained encoder."""

    model: CnnClassifySettings = CnnClassifySettings()

    @model_validator(mode="after")
    def _check_network(self) -> CnnClassifyConfig:
        check_text_cnn(self)
        return self


VARIANTS = {"bert": BertClassifyConfig, "cnn": CnnClassifyConfig}
