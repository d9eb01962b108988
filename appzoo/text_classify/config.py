"""Configuration of text classification."""

from __future__ import annotations

from pydantic import model_validator

from appzoo.settings import EncoderSettings, MultiLabelSettings
from appzoo.words_settings import WordSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


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


class BertClassifySettings(EncoderSettings, MultiLabelSettings):
    """Encoder and head."""


class BertClassifyConfig(ClassifyConfig):
    """Classify or score one text or a pair of texts."""

    model: BertClassifySettings = BertClassifySettings()


class CnnClassifySettings(WordSettings, MultiLabelSettings):
    """Words, convolutions and head."""

    max_vocab_size: int = setting(
        30000, "Most words kept, the most frequent ones; six special tokens count.", advanced=True, modes="T", ge=7
    )
    num_filters: list[int] = setting([100, 100, 100], "Filters of each width.", advanced=True, modes="T")
    filter_sizes: list[int] = setting([3, 4, 5], "Widths of the filters, in words.", advanced=True, modes="T")
    dropout_rate: float = setting(0.5, "Dropout before the head.", advanced=True, modes="T", ge=0, lt=1)


class CnnClassifyConfig(ClassifyConfig):
    """Classify or score one text by convolutions over its words, without a pre-trained encoder."""

    model: CnnClassifySettings = CnnClassifySettings()

    @model_validator(mode="after")
    def _check_network(self) -> CnnClassifyConfig:
        filters, sizes = self.model.num_filters, self.model.filter_sizes
        if len(filters) != len(sizes) or not filters or min(*filters, *sizes) < 1:
            raise ValueError(
                f"model.num_filters={filters} and model.filter_sizes={sizes} must be equally many whole numbers >= 1"
            )
        if self.data.second_sequence is not None:
            raise ValueError(
                "data.second_sequence does not apply to text_classify_cnn, which reads one text; "
                "text_match_bicnn compares two"
            )
        return self


VARIANTS = {"bert": BertClassifyConfig, "cnn": CnnClassifyConfig}
